"""The pair as a whole: bring it up, take it down, say how it is."""

import fcntl
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lab import accel, ssh
from lab.bare import bare_folder, ensure_bare
from lab.bmc import Bmc, require_program
from lab.chassis import Chassis
from lab.disk import disk_folder, ensure_disk
from lab.errors import LabError
from lab.guest import ensure_guest, guest_folder
from lab.hosts import Artefacts, Host
from lab.image import ensure_image, image_folder
from lab.network import Network
from lab.progress import Progress
from lab.recipe import Recipe
from lab.spec import HOSTS, HYPERVISORS, MACHINES, WITNESS, Paths, Settings, host_named, save_settings

PATIENCE = 2.0
"""Seconds that switching a host on waits for another lab command."""


def _lock_within(fd: int, patience: float) -> None:
    """The lock on FD. Raises LabError when another command has it for longer than PATIENCE seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LabError(
                    "another lab command is at work, for example a boot; try again when it has ended"
                ) from None
            time.sleep(0.1)
        else:
            return


@dataclass(frozen=True, slots=True)
class Pair:
    """Two hosts and where it is wanted their witness, their network, and what they boot from."""

    paths: Paths
    settings: Settings
    say: Progress

    @property
    def recipe(self) -> Recipe:
        """Recipe of the hosts' image."""
        return Recipe(self.settings.debian)

    @property
    def network(self) -> Network:
        """The lab's network."""
        return Network(self.paths, self.settings.namespace)

    @property
    def hosts(self) -> list[Host]:
        """Both hosts."""
        return [Host(spec, self.paths, self.settings) for spec in HOSTS]

    @property
    def artefacts(self) -> Artefacts:
        """What the hosts boot from."""
        paths, recipe = self.paths, self.recipe
        return Artefacts(
            image=image_folder(paths, recipe),
            guest=guest_folder(paths, recipe),
            disk=disk_folder(paths, recipe),
            bare=bare_folder(paths, recipe),
        )

    @property
    def witness(self) -> Host:
        """The machine beside the pair."""
        return Host(WITNESS, self.paths, self.settings)

    def host(self, name: str) -> Host:
        """The machine called NAME."""
        return Host(host_named(name), self.paths, self.settings)

    @property
    def bmcs(self) -> list[Bmc]:
        """One for each host of the pair, wanted or not; a witness has none."""
        return [Bmc(spec, self.paths, self.settings) for spec in HOSTS]

    def chassis(self, name: str) -> Chassis:
        """What the BMC of the machine called NAME switches."""
        host = self.host(name)
        return Chassis(name, on=lambda: self.power_on(name), off=host.kill, powered=host.running)

    @contextmanager
    def locked(self, patience: float | None = None) -> Iterator[None]:
        """One command at a time changes which hosts there are. patience: seconds after which LabError is raised instead of
        waiting on for another command."""
        self.paths.state.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.paths.state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if patience is None:
                    self.say("another lab command is at work; waiting for it")
                    fcntl.flock(fd, fcntl.LOCK_EX)
                else:
                    _lock_within(fd, patience)
            yield
        finally:
            os.close(fd)

    def build_image(self) -> bool:
        """Make sure that the image which the hosts boot from is in the cache; True when it was built now."""
        if self.settings.hosts == "bare":
            return ensure_bare(self.paths, self.recipe, self.say)
        return ensure_image(self.paths, self.recipe, self.say)

    def build(self) -> bool:
        """Make sure that image, guest and the guest's disk are in the cache; True when something was built."""
        with ThreadPoolExecutor(max_workers=1) as pool:  # half of a build is waiting for the archive
            disk = pool.submit(ensure_disk, self.paths, self.recipe, self.say)
            # Also where the hosts are bare: the guest is made of its parts, and a witness boots from it.
            image = ensure_image(self.paths, self.recipe, self.say)
            if self.settings.hosts == "bare":
                image |= self.build_image()
            guest = ensure_guest(self.paths, self.recipe, self.say)
            return disk.result() or image or guest

    def require_hypervisor(self) -> None:
        """Raises LabError where the hosts cannot have such a Xen."""
        if self.settings.hosts == "bare" and self.settings.hypervisor != "current":
            raise LabError("bare hosts boot the Xen that is installed on them; leave --hypervisor out, or --hosts bare")
        wanted = HYPERVISORS[self.settings.hypervisor]
        if not (self.artefacts.image / wanted).exists():
            raise LabError(
                f"Debian {self.settings.debian} has no Xen with shadow paging, which PV guests need to be protected; "
                "use --debian 12, or another type of guest"
            )

    def _kvm(self, host: Host) -> bool:
        """Whether hosts run under KVM, and remember it: a trial takes longer than whoever switches a host on waits."""
        kvm = accel.usable(host.boot_files(self.artefacts), self.settings.debian, self.say)
        self.paths.acceleration.write_text("kvm" if kvm else "emulation")
        return kvm

    def _start_all(self, hosts: list[Host], fresh: bool) -> None:
        artefacts = self.artefacts
        kvm = self._kvm(hosts[0])

        def start(host: Host) -> str | None:
            try:
                host.start(artefacts, self.network, kvm, fresh, self.say)
            except LabError as error:
                return str(error)
            return None

        with ThreadPoolExecutor(max_workers=len(hosts)) as pool:
            failures = [text for text in pool.map(start, hosts) if text]
        if failures:
            raise LabError("\n\n".join(failures))

    def up(self, witness: bool = False, bmc: bool = False) -> bool:
        """Both hosts, and with WITNESS their witness, are usable after return, and with BMC each host has one that answers; True
        when something had to be done for that."""
        machines = [*self.hosts, self.witness] if witness else self.hosts
        if bmc:
            require_program()
        with self.locked():
            changed = self.build()
            self.require_hypervisor()
            changed |= ssh.ensure_key(self.paths)
            changed |= ssh.ensure_config(self.paths, self.settings)
            save_settings(self.paths, self.settings)
            changed |= self.network.ensure(self.say)
            for each in self.bmcs if bmc else []:
                changed |= each.start()
                self.say(f"{each.spec.name}: its BMC answers on UDP port {each.port} of 127.0.0.1")
            missing = [host for host in machines if not host.running()]
            for host in machines:
                if host not in missing:
                    self.say(f"{host.spec.name}: runs")
                    host.wait_usable(self.say)
            if missing:
                self._start_all(missing, fresh=False)
            return changed or bool(missing)

    def start(self, name: str, fresh: bool) -> bool:
        """Machine NAME is usable after return; True when it had to be booted."""
        with self.locked():
            host = self.host(name)
            if host.running():
                return False
            if not self.network.exists():
                raise LabError("the lab has no network; bring it up first")
            ssh.ensure_config(self.paths, self.settings)
            self._start_all([host], fresh)
            return True

    def power_on(self, name: str) -> bool:
        """Machine NAME has power and begins to boot, as it would by its button; False when it had power. Nobody waits until it is
        usable, and nobody boots it anew when it loses its power meanwhile."""
        with self.locked(patience=PATIENCE):
            host = self.host(name)
            if host.running():
                return False
            if not self.network.exists():
                raise LabError("the lab has no network; bring it up first")
            try:
                kvm = self.paths.acceleration.read_text() == "kvm"
            except FileNotFoundError:  # up since before this was remembered
                kvm = self._kvm(host)
            host.launch(self.artefacts, self.network, kvm, fresh=False)
            return True

    def down(self) -> bool:
        """Nothing of the lab runs after return; True when something did, or was left."""
        with self.locked():
            changed = False
            for each in self.bmcs:  # first, so that none switches a host on again
                changed |= each.stop()
                changed |= each.forget()
            for host in [self.host(spec.name) for spec in MACHINES]:
                if host.stop():
                    self.say(f"{host.spec.name}: stopped")
                    changed = True
                changed |= host.forget()
            changed |= self.network.remove()
            for path in (self.paths.settings, self.paths.ssh_config, self.paths.acceleration):
                changed |= path.exists()
                path.unlink(missing_ok=True)
            return changed

    def status(self) -> dict[str, Any]:
        """How the lab is, as data."""
        up = self.network.exists()
        return {
            "debian": self.settings.debian,
            "hypervisor": self.settings.hypervisor,
            "kind": self.settings.hosts,
            "namespace": self.settings.namespace,
            "network": up,
            "cut": self.network.cuts() if up else {},
            "ssh_config": str(self.paths.ssh_config),
            "image": str(self.artefacts.image),
            "guest": str(self.artefacts.guest),
            "disk": str(disk_folder(self.paths, self.recipe)),
            "hosts": {
                bmc.spec.name: {
                    **self._status_of(self.host(bmc.spec.name)),
                    "bmc_port": bmc.port if bmc.running() else None,
                }
                for bmc in self.bmcs
            },
            "witness": {"name": self.witness.spec.name, **self._status_of(self.witness)},
        }

    def _status_of(self, host: Host) -> dict[str, Any]:
        record = host.record()
        running = host.running()
        return {
            "running": running,
            "pid": record.pid if record and running else None,
            "ssh_port": self.settings.ssh_port(host.spec),
            "guests_address": host.spec.guests_address,
            "replication_address": host.spec.replication_address,
            "console": str(host.console),
        }
