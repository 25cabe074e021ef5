"""The pair as a whole: bring it up, take it down, say how it is."""

import fcntl
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lab import accel, ssh
from lab.bare import bare_folder, ensure_bare
from lab.disk import disk_folder, ensure_disk
from lab.errors import LabError
from lab.guest import ensure_guest, guest_folder
from lab.hosts import Artefacts, Host
from lab.image import ensure_image, image_folder
from lab.network import Network
from lab.progress import Progress
from lab.recipe import Recipe
from lab.spec import HOSTS, HYPERVISORS, MACHINES, WITNESS, Paths, Settings, host_named, save_settings


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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One command at a time changes which hosts there are."""
        self.paths.state.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.paths.state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.say("another lab command is at work; waiting for it")
                fcntl.flock(fd, fcntl.LOCK_EX)
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

    def _start_all(self, hosts: list[Host], fresh: bool) -> None:
        artefacts = self.artefacts
        kvm = accel.usable(hosts[0].boot_files(artefacts), self.settings.debian, self.say)

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

    def up(self, witness: bool = False) -> bool:
        """Both hosts, and with WITNESS their witness, are usable after return; True when something had to be done for that."""
        machines = [*self.hosts, self.witness] if witness else self.hosts
        with self.locked():
            changed = self.build()
            self.require_hypervisor()
            changed |= ssh.ensure_key(self.paths)
            changed |= ssh.ensure_config(self.paths, self.settings)
            save_settings(self.paths, self.settings)
            changed |= self.network.ensure(self.say)
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

    def down(self) -> bool:
        """Nothing of the lab runs after return; True when something did, or was left."""
        with self.locked():
            changed = False
            for host in [self.host(spec.name) for spec in MACHINES]:
                if host.stop():
                    self.say(f"{host.spec.name}: stopped")
                    changed = True
                changed |= host.forget()
            changed |= self.network.remove()
            for path in (self.paths.settings, self.paths.ssh_config):
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
            "hosts": {host.spec.name: self._status_of(host) for host in self.hosts},
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
