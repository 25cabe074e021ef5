"""`remusctl support-bundle`: what somebody needs who shall help, in one file of bounded size, without secrets.

It is most needed where something is broken, so whatever cannot be taken is noted and left out; only the file itself must be
written.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import platform
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from remus_agent import __version__
from remus_agent.cli.client import Client
from remus_agent.cli.new_file import new_file
from remus_agent.cli.output import as_json, show
from remus_agent.cli.progress import ProgressLines
from remus_agent.cli.redact import configuration, known_secrets, redacted
from remus_agent.cli.render import size, table, text
from remus_agent.errors import FileError, RemusError
from remus_agent.protocol.control import Progress

MOST_OF_ONE: Final = 4 << 20
"""Bytes of one item; of a longer one the end is taken, because that is what happened last."""
MOST_OF_ALL: Final = 32 << 20
_PRESET: Final = 2
"""Of xz: 17 MiB of memory, in a dom0 that has little."""
_SECONDS: Final = 20.0
"""For one command or one question to the agent."""
_UNITS: Final = ("remus-agent", "remus-supervisor", "remus-disks")
COMMANDS: Final[dict[str, Sequence[str]]] = {
    "host/uname.txt": ("uname", "-a"),
    "host/os-release.txt": ("cat", "/etc/os-release"),
    "host/packages.txt": ("dpkg-query", "--list", "*xen*", "etcd*", "fence*", "linux-image*"),
    "host/memory.txt": ("cat", "/proc/meminfo"),
    "host/modules.txt": ("cat", "/proc/modules"),
    "host/addresses.txt": ("ip", "-s", "address"),
    "host/qdiscs.txt": ("tc", "-s", "qdisc", "show"),
    "host/filesystems.txt": ("df", "-h", "/", "/var/lib/remus", "/run"),
    "host/devices.txt": ("dmsetup", "table"),
    "host/dmesg.txt": ("dmesg", "--time-format", "iso"),
    "host/units.txt": ("systemctl", "status", "--no-pager", "--full", *_UNITS),
    "host/log.txt": ("journalctl", "--no-pager", "--lines", "20000", *(f"--unit={unit}" for unit in _UNITS)),
    "xen/info.txt": ("xl", "info"),
    "xen/list.txt": ("xl", "list", "-v"),
    "xen/dmesg.txt": ("xl", "dmesg"),
}
"""What is run, and where its output goes."""


@dataclass
class Taken:
    """One item. left_out: bytes at its beginning that were too many. problem: why it is missing, or not whole."""

    name: str
    bytes: int = 0
    left_out: int = 0
    problem: str | None = None


@dataclass
class _Bundle:
    """An archive that is being written. secrets: which must not be in it."""

    archive: tarfile.TarFile
    folder: str
    secrets: frozenset[str]
    taken: list[Taken] = field(default_factory=list)
    room: int = field(default_factory=lambda: MOST_OF_ALL)

    def add(self, name: str, content: str, problem: str | None = None) -> None:
        """An item, as far as there is room for it."""
        data = redacted(content, self.secrets).encode(errors="replace")
        most = max(0, min(MOST_OF_ONE, self.room))
        kept = data[-most:] if most else b""
        self.taken.append(Taken(name, len(kept), len(data) - len(kept), problem and redacted(problem, self.secrets)))
        if kept:
            self.room -= len(kept)
            self.write(name, kept)

    def miss(self, name: str, problem: str) -> None:
        """An item that cannot be taken."""
        self.taken.append(Taken(name, problem=redacted(problem, self.secrets)))

    def write(self, name: str, data: bytes) -> None:
        """A file of the archive."""
        entry = tarfile.TarInfo(f"{self.folder}/{name}")
        entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
        self.archive.addfile(entry, io.BytesIO(data))


def support_bundle(client: Client, options: argparse.Namespace, progress: ProgressLines) -> int:
    """Write FILE. Raises FileError when it cannot be written."""
    folder = f"remus-{platform.node()}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    target: Path = options.file
    try:
        with new_file(target) as file, tarfile.open(fileobj=file, mode="w:xz", preset=_PRESET) as archive:
            bundle = _Bundle(archive, folder, known_secrets(options.config))
            _collect(bundle, client, options, progress)
            manifest = _manifest(bundle)
            bundle.write("manifest.json", as_json(manifest).encode())
    except OSError as error:
        taken = isinstance(error, FileExistsError)
        raise FileError(
            f"cannot write {target}: {error.strerror or error}",
            operation="support-bundle",
            left="nothing was written",
            hint="name a file that does not exist yet" if taken else "free space, or name a file in another folder",
        ) from error
    progress.end()
    whole = target.stat().st_size
    show(options, {"file": str(target), "bytes": whole, **manifest}, _render(target, whole, bundle.taken))
    return 0


def _collect(bundle: _Bundle, client: Client, options: argparse.Namespace, progress: ProgressLines) -> None:
    steps: list[tuple[str, Callable[[], None]]] = [
        ("configuration", lambda: _files(bundle, options.config, options.state)),
        ("agent", lambda: _answers(bundle, client)),
        *((name, functools.partial(_run, bundle, name, command)) for name, command in COMMANDS.items()),
    ]
    for number, (name, step) in enumerate(steps):
        progress(Progress(phase="collecting", done=number, total=len(steps), message=name))
        step()


def _files(bundle: _Bundle, config: Path, state: Path) -> None:
    try:
        bundle.add("etc/agent.yaml", configuration(config.read_text(errors="replace")))
    except OSError as error:
        bundle.miss("etc/agent.yaml", f"{config}: {error.strerror}")
    disks = config.with_name("disks.toml")
    others = [("etc/disks.toml", disks)] if disks.exists() else []
    for folder in ("guests", "paused", "disks"):
        found = sorted((state / folder).glob("*")) if (state / folder).is_dir() else []
        others += [(f"state/{folder}/{path.name}", path) for path in found if path.suffix in (".json", ".role")]
    for name, path in others:
        try:
            bundle.add(name, path.read_text(errors="replace"))
        except OSError as error:
            bundle.miss(name, f"{path}: {error.strerror}")


def _answers(bundle: _Bundle, client: Client) -> None:
    """What the agent says; when it does not answer once it is not asked again."""
    questions: list[tuple[str, str, dict[str, Any]]] = [
        ("agent/agent.json", "agent", {}),
        ("agent/list.json", "list", {}),
        ("agent/topology.json", "topology", {}),
        ("agent/events.json", "events", {"limit": 5000}),
    ]
    for name, method, params in questions:
        try:
            answer = client.call(method, params, timeout=_SECONDS)
        except RemusError as error:
            bundle.miss(name, error.message)
            if method == "agent":
                return
            continue
        bundle.add(name, as_json(answer))
        if method == "list":
            for one in answer.get("domains") or []:
                if one.get("role") == "primary":
                    questions.append(
                        (f"agent/records-{one['domain']}.json", "records", {"domain": one["domain"], "limit": 500})
                    )


def _run(bundle: _Bundle, name: str, command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
            check=False,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired as error:
        bundle.add(name, (error.stdout or b"").decode(errors="replace"), f"did not end within {_SECONDS:g} s")
    except OSError as error:
        bundle.miss(name, f"{command[0]}: {error.strerror}")
    else:
        bundle.add(
            name, done.stdout.decode(errors="replace"), f"ended with {done.returncode}" if done.returncode else None
        )


def _manifest(bundle: _Bundle) -> dict[str, Any]:
    return {
        "host": platform.node(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "remusctl": __version__,
        "python": sys.version.split()[0],
        "items": [asdict(one) for one in bundle.taken],
    }


def _render(target: Path, whole: int, taken: Sequence[Taken]) -> str:
    lines = [
        table(
            ("ITEM", "SIZE", "REMARK"), ((one.name, size(one.bytes), " ".join(_remarks(one)) or None) for one in taken)
        ),
        "",
        f"{text(target)}: {size(whole)}. The secrets of the configuration are not in it, nor what looks like one; names and"
        f" addresses of hosts and guests are. Look at it before you give it away: tar -xf {text(target)}",
    ]
    return "\n".join(lines)


def _remarks(one: Taken) -> Iterator[str]:
    if one.problem:
        yield one.problem
    if one.left_out:
        yield f"the first {size(one.left_out)} left out"
