"""More disks than a lab's host has: files behind loop devices, in `/etc/remus/disks.toml` for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pair.hosts import on, on_both
from pair.slow import removal, slow

FOLDER = "/var/lib/remus-test-volumes"
CONFIGURATION = "/etc/remus/disks.toml"
KEPT = f"{FOLDER}/disks.toml"
DISKS = "/var/lib/remus/disks"
"""What hosts keep of protected disks: roles and journals. Volumes of another size may have the same names next."""
METADATA = "/run/remus/md"
"""Where md's metadata lie."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A protected disk of a guest. mib: its size. read_ms: what a read takes, above that of its file."""

    domain: str
    vdev: str
    mib: int
    read_ms: int = 0

    @property
    def mapper(self) -> str:
        """What the guest's configuration names."""
        return f"/dev/mapper/remus-{self.domain}-{self.vdev}"

    @property
    def file(self) -> str:
        """What is behind it on a host."""
        return f"{FOLDER}/{self.domain}-{self.vdev}.img"

    @property
    def slow(self) -> str:
        """Name of the device between the two, where reads take their time."""
        return f"slow-{self.domain}-{self.vdev}"


def _add(host: str, volume: Volume) -> None:
    on(host, f"truncate -s {volume.mib}M {volume.file}")
    device = on(host, f"losetup --find --show --direct-io=on {volume.file}").strip()
    if volume.read_ms:
        device = slow(host, device, volume.slow, volume.read_ms)
    lines = ["", "[[disk]]", f'domain = "{volume.domain}"', f'vdev = "{volume.vdev}"', f'device = "{device}"', ""]
    on(host, f"cat >>{CONFIGURATION}", stdin="\n".join(lines))


def _restore(host: str, volumes: Sequence[Volume]) -> None:
    names = [f"{volume.domain}-{volume.vdev}" for volume in volumes]
    kept = " ".join(f"{DISKS}/remus-{name}* {DISKS}/{name}.journal {METADATA}/{name}.md" for name in names)
    devices = "; ".join(
        f"dmsetup remove --retry remus-{volume.domain}-{volume.vdev};"
        f" {removal(volume.slow)};"
        f" losetup -j {volume.file} -O NAME -n | xargs -r losetup -d"
        for volume in volumes
    )
    on(
        host,
        f"systemctl stop remus-agent.service; cp {KEPT} {CONFIGURATION}; rm -rf {kept}; {devices}; rm -rf {FOLDER};"
        " systemctl start remus-agent.service",
        timeout=300,
    )


@contextlib.contextmanager
def volumes(*wanted: Volume) -> Iterator[None]:
    """The volumes on both hosts, empty; no guest that uses them may run before or afterwards."""

    def add(host: str) -> None:
        on(host, f"mkdir -p {FOLDER} && cp {CONFIGURATION} {KEPT} && modprobe loop")
        for volume in wanted:
            _add(host, volume)
        on(host, "systemctl restart remus-disks.service remus-agent.service", timeout=180)

    on_both(add)
    try:
        yield
    finally:
        on_both(lambda host: _restore(host, wanted))
