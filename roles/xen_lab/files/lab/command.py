"""Run commands; a failing one becomes a LabError that quotes what it said."""

import shlex
import subprocess
from collections.abc import Sequence

from lab.errors import LabError


def run(argv: Sequence[str], timeout: float = 60, stdin: str = "", check: bool = True) -> str:
    """Output of ARGV. With CHECK a failure raises; without it the output so far is returned."""
    words = " ".join(shlex.quote(word) for word in argv)
    try:
        done = subprocess.run(list(argv), input=stdin, text=True, capture_output=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is not installed (needed for: {words})") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"no end after {timeout:.0f} s: {words}") from error
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise LabError(f"failed with status {done.returncode}: {words}\n{said}")
    return done.stdout
