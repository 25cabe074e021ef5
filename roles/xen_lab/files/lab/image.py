"""The hosts' disk image, built once from Debian packages and cached.

A finished image folder holds ``root.img`` (ext4), ``xen`` (and ``xen-shadow``), ``vmlinuz``, ``initrd.img``, ``parts/`` (what the
guest is made of) and ``packages.txt`` (what was installed, with versions).
"""

import gzip
import shutil
from dataclasses import dataclass
from pathlib import Path

from lab.chroot import chroot
from lab.command import run
from lab.debian import bootstrap, customise, install_packages, lay_over
from lab.errors import LabError
from lab.initramfs import copy_modules, install, pack
from lab.progress import Progress
from lab.recipe import Recipe
from lab.spec import WITH_SHADOW, Paths
from lab.store import ensure_built, require_root

PARTS = "parts"
GUEST_BINARIES = ("usr/bin/redis-server", "usr/bin/perl")
PERL_FOLDER = "usr/lib/x86_64-linux-gnu/perl-base"
PERL_MODULES = ("strict.pm", "warnings.pm")


def image_folder(paths: Paths, recipe: Recipe) -> Path:
    """Where the finished image for RECIPE lies."""
    return paths.cache / f"image-{recipe.release}-{recipe.image_key[:16]}"


def ensure_image(paths: Paths, recipe: Recipe, say: Progress) -> bool:
    """Build the image for RECIPE unless it is cached; True when it was built now."""
    require_root("an image")
    what = f"image of Debian {recipe.debian}"
    return ensure_built(image_folder(paths, recipe), what, lambda new: Builder(new, recipe, say).build(), say)


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds one image in the empty folder ``folder``."""

    folder: Path
    recipe: Recipe
    say: Progress

    @property
    def root(self) -> Path:
        """The tree that becomes the image's file system."""
        return self.folder / "root"

    @property
    def log(self) -> Path:
        """Everything the build's commands said."""
        return self.folder / "build.log"

    def build(self) -> None:
        """Do all steps."""
        release = self.recipe.release
        self.say(f"image of Debian {self.recipe.debian} ({release}): not cached, building (some minutes)")
        self.bootstrap()
        self.say("installing packages")
        self.install()
        self.say("collecting the guest's parts")
        self.collect_parts()
        self.add_shadow_hypervisor()
        customise(self.root, self.recipe.assets / "dom0", self.log)  # this empties apt's lists as well
        self.say("writing the disk image")
        self.write_image()
        shutil.rmtree(self.root)

    def bootstrap(self) -> None:
        """A minimal Debian, and the archive settings of this machine."""
        self.say(f"bootstrapping Debian {self.recipe.release} from this machine's archive")
        bootstrap(self.root, self.recipe.release, self.log)

    def install(self) -> None:
        """The recipe's files, then its packages (whose scripts see the files)."""
        lay_over(self.recipe.assets / "dom0/overlay", self.root)
        versions = install_packages(self.root, self.recipe.packages, self.log)
        (self.folder / "packages.txt").write_text(versions)

    def collect_parts(self) -> None:
        """Unpack the guest's packages; keep their binaries, the libraries these need, and kernel modules."""
        stage = self.root / "guest-parts"
        (stage / "debs").mkdir(parents=True)
        simulate = "apt-get -s install --no-install-recommends " + " ".join(self.recipe.guest_packages)
        fetch = (
            f"cd /guest-parts/debs && apt-get -q download {' '.join(self.recipe.guest_packages)} "
            f"$({simulate} | sed -n 's/^Inst \\([^ ]*\\).*/\\1/p') && "
            'for deb in *.deb; do dpkg-deb -x "$deb" /guest-parts/tree; done'
        )
        chroot(self.root, ["sh", "-ec", fetch], self.log)
        libraries = "/guest-parts/tree/usr/lib/x86_64-linux-gnu:/guest-parts/tree/lib/x86_64-linux-gnu"
        words = " ".join(f"/guest-parts/tree/{name}" for name in GUEST_BINARIES)
        copy = (
            f"export LD_LIBRARY_PATH={libraries}; mkdir -p /guest-parts/lib; ldd {words} "
            "| sed -nE 's/.*(=> |^\\s+)(\\/[^ ]+) \\(.*/\\2/p' | sort -u "
            '| while read -r file; do cp -L "$file" /guest-parts/lib/; done'
        )
        chroot(self.root, ["sh", "-ec", copy], self.log)
        parts = self.folder / PARTS
        (parts / "bin").mkdir(parents=True)
        for name in GUEST_BINARIES:
            shutil.copyfile((stage / "tree" / name).resolve(), parts / "bin" / Path(name).name)
        busybox = next(path for path in stage.glob("tree/**/bin/busybox") if path.is_file())
        shutil.copyfile(busybox, parts / "bin/busybox")
        shutil.copytree(stage / "lib", parts / "lib")
        (parts / "perl").mkdir()
        for name in PERL_MODULES:
            shutil.copyfile(stage / "tree" / PERL_FOLDER / name, parts / "perl" / name)
        for name, modules in self.recipe.guest_modules.items():
            copy_modules(self.modules, modules, parts / name)
        shutil.rmtree(stage)

    @property
    def modules(self) -> Path:
        """Folder of the installed kernel's modules."""
        found = sorted((self.root / "lib/modules").iterdir())
        if not found:
            raise LabError(f"no kernel was installed; log: {self.log}")
        return found[-1]

    def write_image(self) -> None:
        """The boot files, and the tree as a sparse ext4 image."""
        boot = self.root / "boot"
        hypervisor = max(boot.glob("xen-*.gz"))
        (self.folder / "xen").write_bytes(gzip.decompress(hypervisor.read_bytes()))
        shutil.copyfile(max(boot.glob("vmlinuz-*")), self.folder / "vmlinuz")
        self.write_initrd()
        image = self.folder / "root.img"
        with image.open("wb") as file:
            file.truncate(self.recipe.disk_mib << 20)
        run(["mkfs.ext4", "-q", "-F", "-L", "remus-lab", "-d", str(self.root), str(image)], timeout=900)

    def add_shadow_hypervisor(self) -> None:
        """The release's first Xen, from before security updates left shadow paging out: only it can protect PV guests."""
        if self.recipe.debian not in WITH_SHADOW:
            return
        package = next(path.name for path in (self.root / "boot").glob("xen-*.gz")).removesuffix(".gz")
        name = f"xen-hypervisor-{package.removeprefix('xen-')}"
        fetch = f"mkdir /older && cd /older && apt-get -q download {name}/{self.recipe.release} && dpkg-deb -x {name}_*.deb ."
        chroot(self.root, ["sh", "-ec", fetch], self.log)
        older = self.root / "older"
        if "CONFIG_SHADOW_PAGING=y" not in (older / "boot" / f"{package}.config").read_text():
            raise LabError(f"{name} of {self.recipe.release} was built without shadow paging, too; log: {self.log}")
        (self.folder / "xen-shadow").write_bytes(gzip.decompress((older / "boot" / f"{package}.gz").read_bytes()))
        shutil.rmtree(older)

    def write_initrd(self) -> None:
        """An initrd that does nothing but mount the disk: in emulation a general one costs 10 to 20 seconds."""
        tree = self.folder / "initrd"
        install(self.folder / PARTS / "bin/busybox", tree / "bin/busybox", 0o755)
        install(self.recipe.assets / "dom0/init", tree / "init", 0o755)
        copy_modules(self.modules, self.recipe.initrd_modules, tree / "modules")
        pack(tree, self.folder / "initrd.img")
        shutil.rmtree(tree)
