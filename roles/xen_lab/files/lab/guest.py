"""The guest's kernel and initramfs, packed into a read-only disk for the hosts.

Built offline from the parts that the image's build kept, so that a change of the guest needs no new image.
"""

import shutil
from pathlib import Path
from string import Template

from lab.command import run
from lab.image import PARTS, PERL_FOLDER, image_folder
from lab.initramfs import install, pack
from lab.progress import Progress
from lab.recipe import MODULES, Recipe
from lab.spec import Paths
from lab.store import ensure_built

DISK_MIB = 128
FOLDERS = (
    *("bin", "dev", "disk", "etc", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin"),
    *("usr/lib/remus-lab", PERL_FOLDER),
)
FILES = {
    "inittab": ("etc/inittab", 0o644),
    "rcS": ("etc/rcS", 0o755),
    "disk": ("etc/disk", 0o755),
    "redis.conf": ("etc/redis.conf", 0o644),
    "beacon": ("usr/lib/remus-lab/beacon", 0o755),
}

TYPES: dict[str, tuple[int, tuple[str, ...]]] = {
    "pvh": (128, ()),
    "pv": (128, ()),
    "hvm": (192, ('vga = "stdvga"', "vnc = 0")),
}
"""The types of guest, the memory of each in MiB (an HVM guest's video memory and firmware are part of it), and the further
lines of their xl.cfg. All are one guest, so that one lab serves tests of each."""
DISK = "/dev/mapper/remus-redis1-xvda"
"""What the host gives to the guest as xvda, when it has a disk."""
DATABASE_MIB = 64
"""Memory that a guest with a disk has besides."""


def guest_folder(paths: Paths, recipe: Recipe) -> Path:
    """Where the finished guest for RECIPE lies."""
    return paths.cache / f"guest-{recipe.release}-{recipe.guest_key[:16]}"


def ensure_guest(paths: Paths, recipe: Recipe, say: Progress) -> bool:
    """Build the guest's disk unless it is cached; True when it was built now. The image must exist."""
    image = image_folder(paths, recipe)
    folder = guest_folder(paths, recipe)

    def build(new: Path) -> None:
        say(f"building the guest from {image.name}")
        root = new / "root"
        lay_out(root, image / PARTS, recipe)
        files = new / "files"
        files.mkdir()
        pack(root, files / "initrd.img")
        shutil.copyfile(image / "vmlinuz", files / "vmlinuz")
        for kind in TYPES:
            (files / f"redis1-{kind}.cfg").write_text(configuration(recipe, kind))
            (files / f"redis1-{kind}-disk.cfg").write_text(configuration(recipe, kind, DISK))
        disk = new / "guest.img"
        with disk.open("wb") as file:
            file.truncate(DISK_MIB << 20)
        run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-L", "remus-guest", "-d", str(files), str(disk)])
        shutil.rmtree(root)

    return ensure_built(folder, "guest", build, say)


def configuration(recipe: Recipe, kind: str, disk: str | None = None) -> str:
    """The xl.cfg of the guest as one of the TYPES: what all share, then what this one needs besides. disk: block device
    on the host that it gets as xvda, and then more memory, for PostgreSQL."""
    common = Template((recipe.assets / "guest/guest.cfg").read_text())
    memory, lines = TYPES[kind]
    if disk is not None:
        memory += DATABASE_MIB
        lines = (*lines, f'disk = ["format=raw,vdev=xvda,access=rw,target={disk}"]')
    return common.substitute(type=kind, memory=memory) + "".join(f"{line}\n" for line in lines)


def lay_out(root: Path, parts: Path, recipe: Recipe) -> None:
    """The tree of the guest's root file system."""
    for name in FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    install(parts / "bin/busybox", root / "bin/busybox", 0o755)
    applets = run([str(root / "bin/busybox"), "--list-full"]).split()
    for applet in applets:
        link = root / applet
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to("/bin/busybox")
    (root / "init").symlink_to("/bin/busybox")
    for name in ("redis-server", "perl"):
        install(parts / "bin" / name, root / "usr/bin" / name, 0o755)
    for library in sorted((parts / "lib").iterdir()):
        folder = "lib64" if library.name.startswith("ld-linux") else "lib"
        install(library, root / folder / library.name, 0o755)
    for module in sorted((parts / "perl").iterdir()):
        install(module, root / PERL_FOLDER / module.name, 0o644)
    for name in MODULES:
        for module in sorted((parts / name).iterdir()):
            install(module, root / "lib" / name / module.name, 0o644)
    for source, (target, mode) in FILES.items():
        install(recipe.assets / "guest" / source, root / target, mode)
