"""What the tests against the nested Xen pair share: commands on its hosts, in its network, and a guest of
their own.

REMUS_LAB_DIR names the lab's folder (default: .lab in the project), REMUS_LAB_HOST the host for tests that
need one only (default: beta). Without a running lab every test here is skipped with the reason."""

from __future__ import annotations

import io
import json
import os
import queue
import shlex
import subprocess
import tarfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

PROJECT = Path(__file__).resolve().parents[2]
LAB_FOLDER = Path(os.environ.get("REMUS_LAB_DIR", PROJECT / ".lab"))
LABCTL = PROJECT / "roles" / "xen_lab" / "files" / "labctl"
STARTED_BY_SSH = 360.0
"""Seconds that a command on an emulated host may take unless told otherwise."""


class CommandFailed(AssertionError):
    """A command ended with another status than 0; the message has what it said."""


def run(command: list[str], *, stdin: bytes = b"", timeout: float = STARTED_BY_SSH) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise CommandFailed(f"{shlex.join(command)} ended with {done.returncode}: {said}")
    return done.stdout.decode(errors="replace")


def labctl(*arguments: str, timeout: float = 600) -> str:
    """What labctl printed."""
    return run(["python3", str(LABCTL), "--state", str(LAB_FOLDER), *arguments], timeout=timeout)


class Lines:
    """The JSON lines a process writes, read in the background so that waiting can have a deadline."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._queue.put(json.loads(line))
        self._queue.put(None)

    def next(self, timeout: float) -> dict[str, Any] | None:
        """The next line; None when the time is over. Raises EOFError when the process has ended."""
        try:
            line = self._queue.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        if line is None:
            raise EOFError
        return line


class Host:
    """One host of the pair."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._ssh = ["ssh", "-F", str(LAB_FOLDER / "ssh_config"), name]

    def run(self, command: str, *, stdin: bytes = b"", timeout: float = STARTED_BY_SSH) -> str:
        """The output of a shell command as root. Raises CommandFailed."""
        return run([*self._ssh, command], stdin=stdin, timeout=timeout)

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """A shell command that goes on, with pipes to its input and output."""
        return subprocess.Popen([*self._ssh, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def put(self, folder: str, files: dict[str, bytes]) -> None:
        """Write files below a folder."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode, entry.mtime = len(content), 0o755, int(time.time())
                tar.addfile(entry, io.BytesIO(content))
        self.run(f"mkdir -p {folder} && tar -x -C {folder}", stdin=archive.getvalue())


@dataclass(frozen=True)
class Guest:
    """A running guest. vif: its interface in dom0."""

    host: Host
    name: str
    domid: int
    mac: str
    address: str

    @property
    def vif(self) -> str:
        return f"vif{self.domid}.0"

    def as_json(self) -> str:
        """As `buffer_agent.py` takes it."""
        vif = {"devid": 0, "device": self.vif, "mac": self.mac, "bridge": "xenbr0"}
        return json.dumps({"name": self.name, "domid": self.domid, "vifs": [vif]})


def newc(files: dict[str, tuple[int, bytes]]) -> bytes:
    """A cpio archive (format newc) of files: name -> (mode, content). The kernel unpacks archives that
    follow one another, and the later one wins."""
    archive = bytearray()
    for number, (name, (mode, content)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], start=1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)
