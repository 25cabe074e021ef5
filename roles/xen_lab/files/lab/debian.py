"""A minimal Debian in a folder, from the archive of the machine that builds it, and packages in it."""

import os
import shutil
from pathlib import Path

from lab import archive
from lab.chroot import chroot, isolated
from lab.command import run

SETTINGS = ("Acquire::Retries=12", "Dpkg::Use-Pty=0", "Dpkg::Options::=--force-unsafe-io")
APT = ["apt-get", "-q", "-y", *(word for setting in SETTINGS for word in ("-o", setting))]
MINIMAL = "ca-certificates"
STAGED = "remus-lab"
"""Folder in the tree where a customise script lies while it runs."""
GUARD = "only-in-a-tree"
"""What such a script reads first, beside its own folder."""


def bootstrap(root: Path, release: str, log: Path) -> None:
    """A minimal Debian of RELEASE in ROOT, with the archive settings of this machine; nothing in it starts a service."""
    sources = archive.machine_sources(release)
    main = next(source for source in sources if source.suite == release)
    words = ["debootstrap", "--variant=minbase", f"--include={MINIMAL}"]
    isolated([*words, main.suite, str(root), main.uri], log, 1800)
    etc = root / "etc"
    (etc / "apt/sources.list").write_text(archive.sources_list(sources))
    settings = archive.machine_settings() + 'APT::Install-Recommends "false";\n'
    (etc / "apt/apt.conf.d/90remus-lab").write_text(settings)
    shutil.copyfile("/etc/resolv.conf", etc / "resolv.conf")
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)


def lay_over(overlay: Path, root: Path) -> None:
    """Copy the files of OVERLAY into ROOT, with modes that do not depend on how the project was checked out."""
    shutil.copytree(overlay, root, dirs_exist_ok=True)
    for path in overlay.rglob("*"):
        copied = root / path.relative_to(overlay)
        copied.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)


def customise(root: Path, recipe: Path, log: Path, *words: str) -> None:
    """Run the script ``customise WORDS`` of the folder RECIPE inside ROOT, with the recipe's files beside it; afterwards all of
    them are gone."""
    staged = root / STAGED
    shutil.copytree(recipe, staged / recipe.name)
    shutil.copyfile(recipe.with_name(GUARD), staged / GUARD)
    chroot(root, ["sh", f"/{STAGED}/{recipe.name}/customise", *words], log)
    shutil.rmtree(staged)


def install_packages(root: Path, packages: list[str], log: Path) -> str:
    """Install PACKAGES in ROOT, everything at its newest; what is installed then, with versions."""
    keep = "--option=Dpkg::Options::=--force-confold"
    chroot(root, [*APT, "update"], log)
    chroot(root, [*APT, keep, "full-upgrade"], log)
    chroot(root, [*APT, keep, "install", *packages], log)
    return run(["chroot", str(root), "dpkg-query", "-W"])
