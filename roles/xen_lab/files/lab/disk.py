"""The guest's disk: a small Debian with PostgreSQL as an ext4 image, built once and cached.

A finished folder holds ``disk.img`` (a sparse raw file without partitions), ``packages.txt`` (what was installed, with versions)
and ``build.log``. The guest's initramfs mounts it and starts PostgreSQL out of it; nothing else in it is ever started.
"""

import shutil
from pathlib import Path

from lab.command import run
from lab.debian import bootstrap, customise, install_packages
from lab.progress import Progress
from lab.recipe import Recipe
from lab.spec import Paths
from lab.store import ensure_built, require_root

IMAGE = "disk.img"


def disk_folder(paths: Paths, recipe: Recipe) -> Path:
    """Where the finished disk for RECIPE lies."""
    return paths.cache / f"disk-{recipe.release}-{recipe.disk_key[:16]}"


def ensure_disk(paths: Paths, recipe: Recipe, say: Progress) -> bool:
    """Build the guest's disk unless it is cached; True when it was built now."""
    require_root("the guest's disk")
    return ensure_built(disk_folder(paths, recipe), "the guest's disk", lambda new: build(new, recipe, say), say)


def build(folder: Path, recipe: Recipe, say: Progress) -> None:
    """Build the disk in the empty FOLDER."""
    root, log = folder / "root", folder / "build.log"
    say(f"the guest's disk ({recipe.release}): not cached, building (a minute or two)")
    bootstrap(root, recipe.release, log)
    assets = recipe.assets / "disk"
    settings = root / "etc/postgresql-common/createcluster.conf"  # read by the package's scripts
    settings.parent.mkdir(parents=True)
    shutil.copyfile(assets / settings.name, settings)
    say("installing PostgreSQL")
    (folder / "packages.txt").write_text(install_packages(root, recipe.disk_packages, log))
    say("making the database")
    customise(root, assets, log)  # this empties apt's lists as well
    say("writing the disk")
    write_image(root, folder / IMAGE, recipe.guest_disk_mib)
    shutil.rmtree(root)


def write_image(root: Path, image: Path, mib: int) -> None:
    """The tree ROOT as a sparse ext4 image whose file system writes nothing by itself once it is mounted."""
    with image.open("wb") as file:
        file.truncate(mib << 20)
    settled = "lazy_itable_init=0,lazy_journal_init=0"
    words = ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", settled, "-L", "remus-proof", "-d", str(root), str(image)]
    run(words, timeout=900)
