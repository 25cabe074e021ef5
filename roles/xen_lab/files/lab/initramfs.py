"""Small initramfs archives: kernel modules and their order of loading, and packing a tree."""

import lzma
import os
import shutil
import subprocess
from pathlib import Path

from lab.command import run
from lab.errors import LabError


def dependencies(text: str) -> dict[str, list[str]]:
    """For every module path of a ``modules.dep``: the paths it needs, the ones to be loaded last first."""
    lines = (line.partition(":") for line in text.splitlines())
    return {path: needed.split() for path, _, needed in lines}


def module_name(path: str) -> str:
    """Name of the module in file PATH, as the kernel spells it."""
    return Path(path).name.partition(".")[0].replace("-", "_")


def load_order(names: list[str], depends: dict[str, list[str]], builtin: set[str]) -> list[str]:
    """Paths of the modules NAMES with everything they need, in the order of loading; built-in ones are left out."""
    by_name = {module_name(path): path for path in depends}
    order: list[str] = []
    for name in (name.replace("-", "_") for name in names):
        if name in builtin:
            continue
        if name not in by_name:
            raise LabError(f"the kernel has no module {name}")
        path = by_name[name]
        order += [*reversed(depends[path]), path]
    return list(dict.fromkeys(order))


def copy_modules(modules: Path, names: list[str], target: Path) -> None:
    """Copy the modules NAMES and what they need from folder MODULES, uncompressed, with a file ``order``."""
    builtin = {module_name(line) for line in (modules / "modules.builtin").read_text().splitlines()}
    order = load_order(names, dependencies((modules / "modules.dep").read_text()), builtin)
    target.mkdir(parents=True)
    written = []
    for path in order:
        data = (modules / path).read_bytes()
        written.append(f"{module_name(path)}.ko")
        (target / written[-1]).write_bytes(lzma.decompress(data) if path.endswith(".xz") else data)
    (target / "order").write_text("".join(f"{name}\n" for name in written))


def install(source: Path, target: Path, mode: int) -> None:
    """Copy SOURCE to TARGET, in place of whatever is there, with MODE."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def pack(root: Path, initramfs: Path) -> None:
    """Write the tree ROOT as a cpio archive, compressed in a way that only its kernel undoes: libxc unpacks gzip before it
    builds a domain, and the guest then holds the archive and its content at the same time."""
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    archive = initramfs.with_suffix(".cpio")
    with archive.open("wb") as output:
        done = subprocess.run(
            ["cpio", "--quiet", "--null", "--create", "--format=newc", "--owner=0:0", "--reproducible"],
            cwd=root,
            input=b"".join(os.fsencode(name) + b"\0" for name in names),
            stdout=output,
            stderr=subprocess.PIPE,
            check=False,
        )
    if done.returncode != 0:
        raise LabError(f"packing {initramfs} failed: {done.stderr.decode(errors='replace').strip()}")
    run(["zstd", "--quiet", "-19", "--rm", "-o", str(initramfs), str(archive)])
