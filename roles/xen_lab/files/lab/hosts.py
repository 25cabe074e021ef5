"""One host: start it, wait until it is usable, kill it, stop it."""

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from lab import console, process, qemu, ssh
from lab.bare import IMAGE as BARE_IMAGE
from lab.command import run
from lab.disk import IMAGE
from lab.errors import LabError
from lab.network import Network
from lab.progress import Progress
from lab.spec import HYPERVISORS, HostSpec, Paths, Settings
from lab.taps import create_tap

READY = "test -e /run/remus-lab/ready && cat /proc/sys/kernel/hostname"
USABLE = f"xl list >/dev/null && {READY}"
"""The same where Xen runs."""
BARE_USABLE = "{ ! test -e /proc/xen/capabilities || xl list >/dev/null; } && cat /proc/sys/kernel/hostname"
"""The same of a bare host, whose networks are up before its ssh is, and which may have got Xen meanwhile."""
POLL_SECONDS = 1.0
ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class Artefacts:
    """Folders of the finished image and guest that hosts boot from, of the guest's disk, and of the bare hosts' image."""

    image: Path
    guest: Path
    disk: Path
    bare: Path


@dataclass(frozen=True, slots=True)
class Host:
    """One host of one lab."""

    spec: HostSpec
    paths: Paths
    settings: Settings

    @property
    def folder(self) -> Path:
        """Where this host's disk, console and pid file lie."""
        return self.paths.host(self.spec)

    @property
    def console(self) -> Path:
        """Serial console of the running (or last) boot."""
        return self.folder / "console.log"

    @property
    def _disk(self) -> Path:
        return self.folder / "disk.qcow2"

    @property
    def _volume(self) -> Path:
        return self.folder / "volume.qcow2"

    @property
    def _pid_file(self) -> Path:
        return self.folder / "qemu.json"

    @property
    def _base_file(self) -> Path:
        return self.folder / "base"

    def record(self) -> process.ProcessRecord | None:
        """Who this host's QEMU is, running or not."""
        return process.load(self._pid_file)

    def running(self) -> bool:
        """Whether this host's QEMU process is alive."""
        record = self.record()
        return record is not None and process.alive(record)

    def boot_files(self, artefacts: Artefacts) -> qemu.BootFiles:
        """Files that this host boots from."""
        image = artefacts.image
        return qemu.BootFiles(
            xen=image / HYPERVISORS[self.settings.hypervisor],
            kernel=image / "vmlinuz",
            initrd=image / "initrd.img",
            disk=self._disk,
            guest_disk=artefacts.guest / "guest.img",
            volume=self._volume,
            console=self.console,
        )

    def ensure_disk(self, artefacts: Artefacts, fresh: bool) -> None:
        """Make the host's own disk and its volume; those that exist are kept unless FRESH or made from other images."""
        self.folder.mkdir(parents=True, exist_ok=True)
        bare = self.settings.bare(self.spec)
        bases = {self._disk: artefacts.bare / BARE_IMAGE if bare else artefacts.image / "root.img"}
        if self.spec.xen:
            bases[self._volume] = artefacts.disk / IMAGE
        record = "".join(f"{base}\n" for base in bases.values())
        kept = self._base_file.read_text() if self._base_file.exists() else ""
        if all(path.exists() for path in bases) and kept == record and not fresh:
            return
        for path, base in bases.items():
            path.unlink(missing_ok=True)
            run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base), str(path)])
        self._base_file.write_text(record)

    def launch(self, artefacts: Artefacts, network: Network, kvm: bool, fresh: bool) -> None:
        """Start this host's QEMU. After return its pid file exists and its taps are plugged in."""
        if self.running():
            raise LabError(f"{self.spec.name} runs already")
        self.ensure_disk(artefacts, fresh)
        console.rotate(self.console)
        fds = [create_tap(self.settings.namespace, self.spec.tap(name)) for name in ("guests", "replication")]
        files = self.boot_files(artefacts)
        key = ssh.public_key(self.paths)
        words = qemu.argv(self.spec, self.settings, files, key, (fds[0], fds[1]), kvm=kvm)
        try:
            with (self.folder / "qemu.log").open("wb") as log:
                started = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=fds,
                    start_new_session=True,
                )
        except FileNotFoundError as error:
            raise LabError("qemu-system-x86_64 is not installed (package qemu-system-x86)") from error
        finally:
            for fd in fds:
                os.close(fd)
        try:
            process.save(self._pid_file, process.record_of(started.pid, qemu.marker(self._disk)))
            network.plug(self.spec)
        except (OSError, LabError) as error:
            started.kill()
            started.wait()
            raise LabError(f"{self.spec.name}: QEMU did not start: {error}\n{self._qemu_says()}") from error

    def _qemu_says(self) -> str:
        try:
            return (self.folder / "qemu.log").read_text(errors="replace")[-2000:].strip()
        except FileNotFoundError:
            return ""

    def _answers(self) -> bool:
        """Whether an ssh server greets on this host's loopback port."""
        try:
            with socket.create_connection(("127.0.0.1", self.settings.ssh_port(self.spec)), 2) as link:
                link.settimeout(3)
                return link.recv(4) == b"SSH-"
        except OSError:
            return False

    def wait_usable(self, say: Progress) -> None:
        """Return when ssh works, the networks are up and Xen's tools answer, where there is Xen.

        Raises when that is late, or when the process or the console shows that it cannot be.
        """
        question = BARE_USABLE if self.settings.bare(self.spec) else USABLE if self.spec.xen else READY
        deadline = time.monotonic() + self.settings.boot_timeout
        announced = time.monotonic()
        while time.monotonic() < deadline:
            if not self.running():
                raise LabError(f"{self.spec.name}: QEMU ended while booting\n{self._qemu_says()}")
            fatal = console.fatal_line(self.console)
            if fatal:
                raise LabError(f"{self.spec.name}: the boot failed: {fatal}")
            if self._answers():
                said = ssh.try_command(self.paths, self.spec, question, 60)
                if said is not None and said.strip() == self.spec.name:
                    return
            if time.monotonic() - announced > 20:
                announced = time.monotonic()
                last = console.tail(self.console, 1).strip()
                say(f"{self.spec.name}: still booting; console: {last[-90:]}")
            time.sleep(POLL_SECONDS)
        raise LabError(f"{self.spec.name}: not usable within {self.settings.boot_timeout} s")

    def start(self, artefacts: Artefacts, network: Network, kvm: bool, fresh: bool, say: Progress) -> None:
        """Boot this host until it is usable. One failed attempt is repeated, with a fresh disk, and said."""
        for attempt in range(1, ATTEMPTS + 1):
            say(f"{self.spec.name}: booting")
            try:
                self.launch(artefacts, network, kvm, fresh or attempt > 1)
                self.wait_usable(say)
            except LabError as error:
                self.kill()
                if attempt < ATTEMPTS:
                    say(f"{error}\n{self.spec.name}: trying once more with a fresh disk")
                    continue
                raise LabError(
                    f"{error}\n{self.spec.name} failed {ATTEMPTS} times; "
                    f"the end of its console ({self.console}):\n{console.tail(self.console)}"
                ) from error
            say(f"{self.spec.name}: usable (ssh -F {self.paths.ssh_config} {self.spec.name})")
            return

    def signal(self, number: signal.Signals) -> bool:
        """Signal this host's QEMU; False when it does not run."""
        record = self.record()
        return record is not None and process.send(record, number)

    def kill(self) -> bool:
        """Power loss: SIGKILL. After return the process is gone. False when it did not run."""
        record = self.record()
        if record is None or not process.send(record, signal.SIGKILL):
            return False
        if not process.wait_gone(record, 15):
            raise LabError(f"{self.spec.name}: QEMU (pid {record.pid}) is still there 15 s after SIGKILL")
        return True

    def stop(self) -> bool:
        """End this host's QEMU, politely at first; False when it did not run."""
        record = self.record()
        if record is None or not process.send(record, signal.SIGTERM):
            return False
        process.send(record, signal.SIGCONT)
        if not process.wait_gone(record, 10):
            self.kill()
        return True

    def forget(self) -> bool:
        """Remove the stopped host's disk and records, keep its console files; False when there were none."""
        found = False
        for path in (self._disk, self._volume, self._base_file, self._pid_file):
            found = found or path.exists()
            path.unlink(missing_ok=True)
        if self.folder.exists() and not any(self.folder.glob("console.log*")):
            shutil.rmtree(self.folder)
        return found
