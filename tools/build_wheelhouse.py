"""Build one archive with everything that the agent needs on a host, so that the host needs no network and no compiler.

    dist/wheelhouse/deps-<python>-<hash of the pins>/*.whl      downloaded once a set of pins
    dist/wheelhouse/<release>-py<python>.tar                    these and the agent's own wheel
    dist/wheelhouse/<release>-py<python>.json                   what is in it

The release is `<version>-<hash>`, the hash being over the agent's sources, the pins and the Python version; the same sources
give the same release, and then nothing is built again. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
SOURCES = ("pyproject.toml", "README.md", "LICENSE")
FORMAT = "1"
PROTOCOL = re.compile(r"^PROTOCOL: Final = (\d+)$", re.MULTILINE)
SAYS_PROTOCOL = "remus_agent/protocol/replication/messages.py"


class WheelhouseError(Exception):
    """It could not be built; the message says what to do."""


def sources(root: Path) -> list[Path]:
    """Files that the agent's wheel is made of, in a fixed order."""
    package = [
        path for path in sorted((root / "remus_agent").rglob("*")) if path.is_file() and "__pycache__" not in path.parts
    ]
    return [*(root / name for name in SOURCES), *package]


def digest(root: Path, pins: bytes, python: str) -> str:
    """Hash of what decides the archive's content. README.md is left out: it is only text in the wheel's metadata."""
    state = hashlib.sha256(f"{FORMAT}\0{python}\0".encode())
    state.update(pins)
    for path in sources(root):
        if path.name == "README.md" and path.parent == root:
            continue
        state.update(f"\0{path.relative_to(root)}\0".encode())
        state.update(path.read_bytes())
    return state.hexdigest()


def protocol(root: Path) -> int:
    """Version of the protocol between agents. Read and not imported: the builder need not have what the agent needs."""
    found = PROTOCOL.search((root / SAYS_PROTOCOL).read_text())
    if found is None:
        raise WheelhouseError(f"{SAYS_PROTOCOL} does not say which protocol the agent speaks")
    return int(found.group(1))


def copy_sources(root: Path, target: Path) -> None:
    """A private copy, so that an editor that saves while we build cannot mix two states."""
    for path in sources(root):
        copy = target / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def run(command: list[str], what: str, cwd: Path | None = None) -> None:
    """Run a command whose failure ends the build."""
    environment = dict(os.environ, SOURCE_DATE_EPOCH="1767225600", PIP_DISABLE_PIP_VERSION_CHECK="1")
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise WheelhouseError(f"{what} failed:\n{(done.stdout + done.stderr)[-3000:]}")


def build_wheel(source: Path, target: Path) -> Path:
    """The agent's wheel, by hatchling where it is installed and by pip's own isolation otherwise."""
    if importlib.util.find_spec("hatchling"):
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    else:
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(target), "."]
    run(command, "building the agent's wheel", cwd=source)
    wheels = list(target.glob("remus_agent-*.whl"))
    if len(wheels) != 1:
        raise WheelhouseError(f"expected one wheel in {target}, found {len(wheels)}")
    return wheels[0]


def fetch_dependencies(pins: Path, python: str, target: Path) -> list[Path]:
    """The pinned wheels for the host's Python; every hash is checked by pip."""
    if not target.is_dir():
        beside = Path(tempfile.mkdtemp(prefix=".deps-", dir=target.parent))
        try:
            platforms = [part for name in PLATFORMS for part in ("--platform", name)]
            run(
                [
                    sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(beside), "--no-deps",
                    "--only-binary", ":all:", "--require-hashes", "--implementation", "cp",
                    "--python-version", python, *platforms, "-r", str(pins),
                ],
                f"downloading the pinned wheels for Python {python} (a package index must be reachable from the controller)",
            )  # fmt: skip
            beside.rename(target)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    return sorted(target.glob("*.whl"))


def pack(wheels: list[Path], target: Path) -> None:
    """One uncompressed tar, since wheels are compressed; reproducible."""
    beside = target.with_suffix(".new")
    with tarfile.open(beside, "w", format=tarfile.PAX_FORMAT) as archive:
        for wheel in wheels:
            entry = tarfile.TarInfo(wheel.name)
            entry.size = wheel.stat().st_size
            entry.mode = 0o644
            with wheel.open("rb") as content:
                archive.addfile(entry, content)
    beside.replace(target)


def prune(output: Path, python: str, keep: int = 4) -> None:
    """Remove all but the newest archives for this Python; a day of development makes many."""
    archives = sorted(output.glob(f"*-py{python}.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for archive in archives[keep:]:
        archive.unlink()
        archive.with_suffix(".json").unlink(missing_ok=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One builder at a time; Ansible asks once a host."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(python: str, output: Path, root: Path = ROOT) -> dict[str, Any]:
    """Build the archive for a host's Python unless it is there; return its manifest and whether it was built now."""
    started = time.monotonic()
    if python not in PYTHONS:
        raise WheelhouseError(f"no pinned wheels for Python {python}; supported are {', '.join(PYTHONS)}")
    pins = root / "requirements" / "agent.txt"
    with alone(output), tempfile.TemporaryDirectory(prefix="remus-wheel-") as scratch:
        copy = Path(scratch, "source")
        copy_sources(root, copy)
        version = tomllib.loads((copy / "pyproject.toml").read_text())["project"]["version"]
        spoken = protocol(copy)
        release = f"{version}-{digest(copy, pins.read_bytes(), python)[:10]}"
        archive = output / f"{release}-py{python}.tar"
        manifest_path = archive.with_suffix(".json")
        if archive.is_file() and manifest_path.is_file():
            manifest: dict[str, Any] = json.loads(manifest_path.read_text())
            return {**manifest, "protocol": spoken, "changed": False, "seconds": round(time.monotonic() - started, 1)}
        tag = hashlib.sha256(pins.read_bytes()).hexdigest()[:10]
        wheels = fetch_dependencies(pins, python, output / f"deps-{python}-{tag}")
        wheel = build_wheel(copy, Path(scratch, "wheel"))
        pack([*wheels, wheel], archive)
        manifest = {
            "release": release,
            "version": version,
            "python": python,
            "archive": str(archive.resolve()),
            "bytes": archive.stat().st_size,
            "wheels": [path.name for path in [*wheels, wheel]],
        }
        beside = archive.with_suffix(".json.new")
        beside.write_text(json.dumps(manifest, indent=2) + "\n")
        beside.replace(manifest_path)
        prune(output, python)
    return {**manifest, "protocol": spoken, "changed": True, "seconds": round(time.monotonic() - started, 1)}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Build the archive that installs the agent on a host")
    parser.add_argument("--python", required=True, help="major.minor of the host's Python, e.g. 3.13")
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "wheelhouse")
    options = parser.parse_args()
    try:
        manifest = build(options.python, options.output)
    except WheelhouseError as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    sys.stdout.write(json.dumps(manifest, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
