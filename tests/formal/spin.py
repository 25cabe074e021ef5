"""Runs spin on the model: makes a verifier of it, lets it search, and reads what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODEL = HERE / "authority.pml"
MEBIBYTES = 600
"""No search may need more memory than that; the largest needs about half."""


class SpinError(Exception):
    """The tools are missing, or did not do what they were asked for."""


@dataclass(frozen=True)
class Verdict:
    """What a search came to. complete: nothing that the model can do was left out. error: the first that was found."""

    errors: int
    complete: bool
    states: int
    error: str | None
    text: str


def build(directory: Path, defines: Sequence[str] = (), options: Sequence[str] = ("-DSAFETY",)) -> Path:
    """Make the verifier of the model with these macros. options: what the verifier itself is compiled with."""
    missing = [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]
    if missing:
        raise SpinError(f"missing: {', '.join(missing)}; `apt-get install spin gcc`, or `make setup`, installs it")
    shutil.copy(MODEL, directory)
    shutil.copy(HERE / "trace_reader.h", directory)
    _run(["spin", *(f"-D{each}" for each in defines), "-a", MODEL.name], directory)
    # All state is in globals, so that partial order reduction finds nothing to leave out: not looking for it is faster.
    fixed = ("-O1", "-w", "-DNOREDUCE", "-DCOLLAPSE", f"-DMEMLIM={MEBIBYTES}")
    _run(["gcc", *fixed, *options, "-o", "pan", "pan.c"], directory)
    return directory / "pan"


def search(
    verifier: Path,
    *arguments: str,
    depth: int = 10_000,
    hash_bits: int = 22,
    environment: Mapping[str, str] | None = None,
) -> Verdict:
    """Let a verifier search until it finds an error or has seen everything."""
    command = [str(verifier), f"-m{depth}", f"-w{hash_bits}", "-n", *arguments]
    text = _run(command, verifier.parent, environment)
    errors = re.search(r"errors: (\d+)", text)
    states = re.search(r"(\d+(?:\.\d+e\+\d+)?) states, stored", text)
    if errors is None or states is None:
        raise SpinError(f"no verdict in what the verifier says:\n{text}")
    found = re.search(r"^pan:\d+: (.*)", text, re.MULTILINE)
    truncated = "max search depth too small" in text or "Search not completed" in text or "reached -DMEMLIM" in text
    return Verdict(int(errors[1]), not truncated, int(float(states[1])), found and found[1], text)


def _run(command: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=directory,
        env=os.environ | dict(environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SpinError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout
