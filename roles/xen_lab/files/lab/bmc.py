"""A BMC for a host: OpenIPMI's ipmi_sim on this machine's loopback device, whose chassis is the host's QEMU.

It is a process of its own and lives whatever becomes of its host: that is what a BMC is for. The hosts reach it at 10.0.2.2,
which is this machine's loopback device in QEMU's user-mode network. What it is told to switch, it has `labctl chassis` do.

User name and password are made at random, and both are secret: ipmi_sim lets a client that asks for no authentication at all
(IPMI's cipher suite 0) in by the name alone.
"""

import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from lab import process
from lab.errors import LabError
from lab.spec import HostSpec, Paths, Settings

PROGRAM = "ipmi_sim"
LABCTL = Path(__file__).resolve().parent.parent / "labctl"
PING = bytes.fromhex("0600ff06000011be80000000")
"""RMCP's question whether somebody is there (ASF presence ping)."""
READY_SECONDS = 15.0
EMULATION = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
mc_enable 0x20
"""
"""One management controller, which answers by itself."""


def require_program() -> None:
    """Raise LabError where ipmi_sim is not installed."""
    if shutil.which(PROGRAM) is None:
        raise LabError(
            f"{PROGRAM} is not installed, which is the hosts' BMC; apt-get install openipmi, or leave --bmc out"
        )


def configuration(name: str, port: int, user: str, password: str) -> str:
    """Text of ipmi_sim's lan.conf. The program of the chassis lies beside it: ipmi_sim runs in that folder."""
    return f"""name "{name}"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_admin md5
    guid "{f"remus-lab-{name}":.16}"
  endlan
  chassis_control "./chassis"
  user 2 true "{user}" "{password}" admin 10 md5
"""


def write_secret(path: Path, text: str, mode: int = 0o600) -> None:
    """A new file, which nobody else could read at any time."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "w") as file:
        file.write(text)


@dataclass(frozen=True, slots=True)
class Bmc:
    """Of one host. Its port has the number of the host's ssh port, in UDP."""

    spec: HostSpec
    paths: Paths
    settings: Settings

    @property
    def folder(self) -> Path:
        """Where its files lie, for root alone."""
        return self.paths.state / "bmc" / self.spec.name

    @property
    def port(self) -> int:
        """UDP port on 127.0.0.1."""
        return self.settings.ssh_port(self.spec)

    @property
    def user(self) -> Path:
        """File with the name that it lets in."""
        return self.folder / "user"

    @property
    def password(self) -> Path:
        """File with the password of that user, as `ipmitool -f` takes it."""
        return self.folder / "password"

    @property
    def chassis(self) -> Path:
        """The program that ipmi_sim has switch and ask the host."""
        return self.folder / "chassis"

    @property
    def _pid_file(self) -> Path:
        return self.folder / "ipmi_sim.json"

    @property
    def _lan(self) -> Path:
        return self.folder / "lan.conf"

    @property
    def _log(self) -> Path:
        return self.folder / "ipmi_sim.log"

    def running(self) -> bool:
        """Whether its process is alive."""
        record = process.load(self._pid_file)
        return record is not None and process.alive(record)

    def write_files(self) -> None:
        """Everything it reads. User and password are made once, and kept until the lab is taken down."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.parent.chmod(0o700)
        for path, text in (
            (self.user, f"lab{secrets.token_hex(6)}"),
            (self.password, secrets.token_hex(8)),  # 16 bytes, the most that every version of IPMI takes
        ):
            if not path.exists():
                write_secret(path, text)
        user, password = self.user.read_text(), self.password.read_text()
        write_secret(self._lan, configuration(self.spec.name, self.port, user, password))
        (self.folder / "emulation").write_text(EMULATION)
        words = [sys.executable, str(LABCTL), "--state", str(self.paths.state), "chassis", self.spec.name]
        write_secret(self.chassis, f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', 0o700)
        # ipmi_sim prefers what it has kept of an earlier run to its configuration.
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        (self.folder / "state").mkdir()

    def start(self) -> bool:
        """It answers after return; False when it did before."""
        if self.running():
            return False
        require_program()
        self.write_files()
        self.launch()
        return True

    def launch(self) -> None:
        """Start ipmi_sim on the files that are there, and wait until it answers."""
        words = [PROGRAM, "-n", "-c", str(self._lan), "-f", str(self.folder / "emulation")]
        words += ["-s", str(self.folder / "state")]
        with self._log.open("wb") as log:
            started = subprocess.Popen(
                words, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        process.save(self._pid_file, process.record_of(started.pid, str(self._lan)))
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            if started.poll() is not None or time.monotonic() >= deadline:
                said = self._log.read_text(errors="replace")[-2000:].strip()
                self.stop()
                raise LabError(
                    f"{self.spec.name}: its BMC does not answer on UDP port {self.port} of 127.0.0.1 "
                    f"(another program's, or another lab's? ss -lunp says whose it is)\n{said}"
                )

    def _answers(self) -> bool:
        """Whether somebody answers RMCP's ping. Takes a fifth of a second when not."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.settimeout(0.2)
            try:
                link.connect(("127.0.0.1", self.port))
                link.send(PING)
                return link.recv(64).startswith(b"\x06\x00")
            except TimeoutError:
                return False
            except OSError:  # nobody has the port yet
                time.sleep(0.2)
                return False

    def stop(self) -> bool:
        """End it; False when it did not run."""
        record = process.load(self._pid_file)
        if record is None or not process.send(record, signal.SIGTERM):
            return False
        if not process.wait_gone(record, 5):
            process.send(record, signal.SIGKILL)
            process.wait_gone(record, 5)
        return True

    def forget(self) -> bool:
        """Remove the stopped BMC's files, its password among them; False when there were none."""
        found = self.folder.exists()
        if found:
            shutil.rmtree(self.folder)
        if self.folder.parent.exists() and not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()
        return found
