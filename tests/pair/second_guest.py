"""A second guest, made from the lab's own: another name, other addresses, and at least three disks: PostgreSQL's, an empty file
system for its tables, and one that is read only and the same on both hosts."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

from pair.guest import WITH_DISK, create
from pair.hosts import CommandFailed, on, on_both
from pair.made_guests import forget, initial_file_system, start_up
from pair.volumes import Volume

NAME = "redis2"
LAST = "102"
ADDRESS = f"10.77.0.{LAST}"
MAC = "00:16:3e:77:00:66"
VOLUMES = (Volume(NAME, "xvda", 320), Volume(NAME, "xvdb", 64))
READ_ONLY = "/dev/vdb"
FOLDER = "/var/lib/remus-test-guest"
CONFIGURATION = f"{FOLDER}/{NAME}.cfg"
OWN_DISK = "/dev/vdc"
"""The lab guest's, which no guest may use while it is copied."""


def _disks(volumes: Sequence[Volume]) -> Iterator[str]:
    for volume in volumes:
        yield f'"format=raw,vdev={volume.vdev},access=rw,target={volume.mapper}"'
    yield f'"format=raw,vdev=xvdc,access=ro,target={READ_ONLY}"'


def _configuration(text: str, volumes: Sequence[Volume]) -> str:
    """Its xl.cfg, from that of the lab's guest with a disk."""
    changes = {
        r'^name = ".*"': f'name = "{NAME}"',
        r"^ramdisk = .*": f'ramdisk = "{FOLDER}/initrd.img"',
        r"mac=[0-9a-f:]+": f"mac={MAC}",
        r"^disk = .*": f"disk = [{', '.join(_disks(volumes))}]",
    }
    for old, new in changes.items():
        text, count = re.subn(old, new, text, flags=re.MULTILINE)
        if count != 1:
            raise CommandFailed(f"the guest's configuration has {count} times what {old} finds")
    return text


def _start(host: str, volumes: Sequence[Volume], fill: str, boot: str) -> None:
    script = f"""
    {initial_file_system(FOLDER)}
    dd if={OWN_DISK} of={volumes[0].mapper} bs=1M oflag=direct conv=nocreat,sparse status=none
    mkfs.ext4 -q {volumes[1].mapper}
    {fill}
    """
    on(host, f"set -e; {script}", stdin=start_up(LAST) + boot, timeout=600)
    on(host, f"cat >{CONFIGURATION}", stdin=_configuration(on(host, f"cat {WITH_DISK}"), volumes))
    create(host, CONFIGURATION, 300, name=NAME)


@contextlib.contextmanager
def second_guest(host: str, volumes: Sequence[Volume] = VOLUMES, *, fill: str = "", boot: str = "") -> Iterator[None]:
    """It runs on a host, unprotected; afterwards on none. Its volumes must be there, and the lab's own guest must not run.

    volumes: the first two as VOLUMES, others are its to use as they are. fill: commands on the host once the second has its
    file system. boot: commands in the guest, at the end of its start-up.
    """
    try:
        _start(host, volumes, fill, boot)
        yield
    finally:
        on_both(lambda host: forget(host, NAME, [NAME], FOLDER))
