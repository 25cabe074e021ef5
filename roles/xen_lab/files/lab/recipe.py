"""What an image is made of, and the hash that names it in the cache.

Everything that shapes an image is data: package lists, scripts and files under ``assets/``, and the
parameters here. ``FORMAT`` stands for the code that carries the recipe out; raise it when that code builds
something different.
"""

import hashlib
import json
import stat
from dataclasses import dataclass
from pathlib import Path

from lab.qemu import LAB_ARGUMENTS, LAB_XEN_ARGUMENTS
from lab.spec import RELEASES

FORMAT = 4
DISK_FORMAT = 1
"""The same for the guest's disk."""
BARE_FORMAT = 1
"""The same for the bare hosts' image."""
MODULES = ("modules", "modules-disk", "modules-virtio")
"""Sets of the guest's kernel modules: always loaded, with a disk, and without Xen."""
ASSETS = Path(__file__).resolve().parent.parent / "assets"


def read_list(path: Path) -> list[str]:
    """Entries of a list file: one a line, ``#`` begins a comment."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def tree_digest(folder: Path) -> dict[str, str]:
    """For every file below FOLDER: whether it is executable, and the hash of its content."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            mode = "x" if path.stat().st_mode & stat.S_IXUSR else "-"
            digests[str(path.relative_to(folder))] = mode + hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def digest(inputs: object) -> str:
    """Hash of INPUTS, which JSON can express."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Recipe:
    """All inputs of the images for one Debian release."""

    debian: int
    assets: Path = ASSETS
    disk_mib: int = 4096
    guest_disk_mib: int = 320

    @property
    def release(self) -> str:
        """Name of the Debian release."""
        return RELEASES[self.debian]

    @property
    def packages(self) -> list[str]:
        """Packages installed in the hosts' image, of every release and of this one."""
        own = self.assets / f"dom0/packages-{self.release}.txt"
        return read_list(self.assets / "dom0/packages.txt") + (read_list(own) if own.exists() else [])

    @property
    def guest_packages(self) -> list[str]:
        """Packages whose files make the guest."""
        return read_list(self.assets / "guest/packages.txt")

    @property
    def initrd_modules(self) -> list[str]:
        """Kernel modules of the hosts' initrd."""
        return read_list(self.assets / "dom0/initrd-modules.txt")

    @property
    def guest_modules(self) -> dict[str, list[str]]:
        """Kernel modules of the guest in the order of loading, by the folder that they lie in."""
        return {name: read_list(self.assets / f"guest/{name}.txt") for name in MODULES}

    @property
    def bare_packages(self) -> list[str]:
        """Packages installed in the bare hosts' image."""
        return read_list(self.assets / "bare/packages.txt")

    @property
    def boot_settings(self) -> str:
        """Text of a file in a bare host's /etc/default/grub.d: the serial console, and what emulation needs of Linux and Xen."""
        return (
            "# What this disposable machine of a lab needs; see the lab's qemu.py for the reasons.\n"
            "GRUB_TIMEOUT=0\n"
            "GRUB_TERMINAL=serial\n"
            'GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"\n'
            f'GRUB_CMDLINE_LINUX="console=ttyS0,115200 {LAB_ARGUMENTS}"\n'
            f'GRUB_CMDLINE_LINUX_XEN_REPLACE="console=hvc0 {LAB_ARGUMENTS}"\n'
            f'GRUB_CMDLINE_XEN="{LAB_XEN_ARGUMENTS}"\n'
        )

    @property
    def disk_packages(self) -> list[str]:
        """Packages installed on the guest's disk."""
        return read_list(self.assets / "disk/packages.txt")

    @property
    def image_key(self) -> str:
        """Name of the hosts' image: what it is made of."""
        inputs = {
            "format": FORMAT,
            "release": self.release,
            "disk_mib": self.disk_mib,
            "dom0": tree_digest(self.assets / "dom0"),
            "guest_packages": self.guest_packages,
            "guest_modules": self.guest_modules,
        }
        return digest(inputs)

    @property
    def guest_key(self) -> str:
        """Name of the guest's disk: the image that its parts come from, and the guest's own files."""
        own = tree_digest(self.assets / "guest")
        return digest({"format": FORMAT, "image": self.image_key, "guest": own})

    @property
    def bare_key(self) -> str:
        """Name of the bare hosts' image."""
        inputs = {
            "format": BARE_FORMAT,
            "release": self.release,
            "disk_mib": self.disk_mib,
            "boot_settings": self.boot_settings,
            "bare": tree_digest(self.assets / "bare"),
        }
        return digest(inputs)

    @property
    def disk_key(self) -> str:
        """Name of the disk with PostgreSQL that a guest may have."""
        own = tree_digest(self.assets / "disk")
        return digest({"format": DISK_FORMAT, "release": self.release, "mib": self.guest_disk_mib, "disk": own})
