"""The image of bare hosts: Debian as its installer leaves it, on a disk that boots with GRUB, without Xen. Built once and cached.

A finished folder holds ``disk.img`` (a sparse raw file), ``packages.txt`` (what was installed, with versions) and ``build.log``.
What only a lab needs of such a host is in its ``/etc/default/grub.d/lab.cfg`` and in the service that gives it its identity.
"""

import shutil
from pathlib import Path

from lab import boot_disk
from lab.command import run
from lab.debian import bootstrap, customise, install_packages, lay_over
from lab.progress import Progress
from lab.recipe import Recipe
from lab.spec import Paths
from lab.store import ensure_built, require_root

IMAGE = "disk.img"
FILE_SYSTEM = "7e3b5d0a-6f1c-4d0e-9c55-72656d757362"
"""UUID of the root file system. The same on every host: no host ever sees the disk of another one."""
SIGNATURE = 0x72656D75
"""Of the disk, in its table of partitions."""
FEATURES = "^orphan_file,^metadata_csum_seed"
"""Of the file system: GRUB of Debian 12 reads none that has these."""


def bare_folder(paths: Paths, recipe: Recipe) -> Path:
    """Where the finished image for RECIPE lies."""
    return paths.cache / f"bare-{recipe.release}-{recipe.bare_key[:16]}"


def ensure_bare(paths: Paths, recipe: Recipe, say: Progress) -> bool:
    """Build the bare hosts' image unless it is cached; True when it was built now."""
    require_root("an image")
    what = f"bare image of Debian {recipe.debian}"
    return ensure_built(bare_folder(paths, recipe), what, lambda new: build(new, recipe, say), say)


def build(folder: Path, recipe: Recipe, say: Progress) -> None:
    """Build the image in the empty FOLDER."""
    root, log = folder / "root", folder / "build.log"
    say(f"bare image of Debian {recipe.debian} ({recipe.release}): not cached, building (some minutes)")
    bootstrap(root, recipe.release, log)
    settings = root / "etc/default/grub.d/lab.cfg"  # the customise script reads it, too
    settings.parent.mkdir(parents=True)
    settings.write_text(recipe.boot_settings)
    lay_over(recipe.assets / "bare/overlay", root)
    say("installing packages")
    (folder / "packages.txt").write_text(install_packages(root, recipe.bare_packages, log))
    customise(root, recipe.assets / "bare", log, FILE_SYSTEM)
    say("writing the disk")
    write_disk(root, folder / IMAGE, recipe.disk_mib)
    shutil.rmtree(root)


def write_disk(root: Path, disk: Path, mib: int) -> None:
    """The tree ROOT as the only partition of DISK, and GRUB before it."""
    boot_disk.create(disk, mib)
    offset = boot_disk.FIRST_SECTOR * boot_disk.SECTOR
    options = ["-O", FEATURES, "-E", f"offset={offset}", "-U", FILE_SYSTEM, "-d", str(root)]
    run(["mkfs.ext4", "-q", "-F", *options, str(disk), f"{mib - (offset >> 20)}M"], timeout=900)
    boot_disk.install_grub(disk, root / "boot/grub/i386-pc", SIGNATURE)
