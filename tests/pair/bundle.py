"""Programs of this machine that a lab host, or a guest, has not installed: each with its libraries and its own loader, so that
no version there matters."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from pair.hosts import CommandFailed, over_ssh, run

LOADER = "ld.so"
_LIBRARY = re.compile(r"^\s*(\S+) => (/\S+) \(", re.MULTILINE)
_INTERPRETER = re.compile(r"^\s*(/\S*ld-linux\S*) \(", re.MULTILINE)


def _files(program: str) -> Iterator[tuple[str, Path]]:
    """Names in the bundle and what they are of."""
    path = shutil.which(program)
    if path is None:
        raise CommandFailed(f"{program} is not installed here")
    said = run(["ldd", path])
    loader = _INTERPRETER.search(said)
    if loader is None:
        raise CommandFailed(f"ldd does not name the loader of {path}:\n{said}")
    yield Path(path).name, Path(path)
    yield LOADER, Path(loader[1])
    for name, library in _LIBRARY.findall(said):
        yield name, Path(library)


def packed(*programs: str) -> bytes:
    """A compressed archive of programs and all that they need."""
    members = {name: path.resolve() for program in programs for name, path in _files(program)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for name, path in members.items():
            archive.add(path, arcname=name)
    return out.getvalue()


def unpack(host: str, folder: str, archive: bytes, timeout: float = 300) -> None:
    """Put a bundle into a folder of a host."""
    words = over_ssh(host, f"mkdir -p {folder} && tar -xzC {folder}")
    done = subprocess.run(words, input=archive, capture_output=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise CommandFailed(f"no bundle on {host}: {done.stderr.decode(errors='replace')}")


def command(folder: str, program: str) -> str:
    """The words that run a bundled program."""
    return f"{folder}/{LOADER} --library-path {folder} {folder}/{Path(program).name}"
