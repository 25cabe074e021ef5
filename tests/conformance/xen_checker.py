"""Where Xen's own checker of streams, verify-stream-v2, is: in $REMUS_VERIFY_STREAM, in the virtual environment (`make
verifier` puts it there) or in /usr/lib/xen-*."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

LEFT_OUT = "REMUS_WITHOUT_VERIFIER"


def candidates() -> list[Path]:
    """Where it may be."""
    named = os.environ.get("REMUS_VERIFY_STREAM")
    installed = sorted(Path("/usr/lib").glob("xen-*/bin/verify-stream-v2"), reverse=True)
    return [*([Path(named)] if named else []), Path(sys.prefix, "share/xen/bin/verify-stream-v2"), *installed]


def find() -> Path:
    """The command. Without it the test fails, for a comparison that nobody notices to be missing shows nothing; with
    REMUS_WITHOUT_VERIFIER=1 it is skipped."""
    found = next((path for path in candidates() if path.is_file()), None)
    if found is not None:
        return found
    if os.environ.get(LEFT_OUT) == "1":
        pytest.skip(f"verify-stream-v2 is left out by {LEFT_OUT}=1")
    pytest.fail(
        f"verify-stream-v2 is at none of: {', '.join(map(str, candidates()))}; `make verifier` fetches it, "
        f"{LEFT_OUT}=1 leaves out what needs it",
        pytrace=False,
    )


def modules_of(tool: Path) -> Path:
    """The checker's Python modules, as its package lays them out."""
    return tool.parents[1] / "lib" / "python"
