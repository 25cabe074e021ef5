"""Where Debian's promtool and prometheus are: in $REMUS_PROMETHEUS, in the virtual environment (`make verifier` puts them there)
or in /usr/bin."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LEFT_OUT = "REMUS_WITHOUT_VERIFIER"
SECONDS = 90


def candidates(tool: str) -> list[Path]:
    """Where it may be."""
    named = os.environ.get("REMUS_PROMETHEUS")
    folders = [*([Path(named)] if named else []), Path(sys.prefix, "share/prometheus"), Path("/usr/bin")]
    return [folder / tool for folder in folders]


def find(tool: str) -> Path:
    """The command. Without it the test fails, for rules that nobody has tested show nothing; with REMUS_WITHOUT_VERIFIER=1 it is
    skipped."""
    found = next((path for path in candidates(tool) if path.is_file()), None)
    if found is not None:
        return found
    if os.environ.get(LEFT_OUT) == "1":
        pytest.skip(f"{tool} is left out by {LEFT_OUT}=1")
    pytest.fail(
        f"{tool} is at none of: {', '.join(map(str, candidates(tool)))}; `make verifier` fetches it, "
        f"{LEFT_OUT}=1 leaves out what needs it",
        pytrace=False,
    )


def promtool(*arguments: str, given: bytes = b"", code: int = 0) -> str:
    """What promtool prints. given: its standard input. code: the exit code it has to end with."""
    done = subprocess.run(
        [find("promtool"), *arguments],
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
        check=False,
    )
    text = done.stdout.decode()
    assert done.returncode == code, f"promtool {' '.join(arguments)} ended with {done.returncode}:\n{text}"
    return text
