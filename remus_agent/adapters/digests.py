"""What the configuration files were when the agent read them, so that whoever writes them can tell whether it has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path


def of_files(paths: Iterable[Path]) -> Mapping[str, str | None]:
    """SHA-256 of each file by its path, in hex; None for one that is not there or cannot be read, which whoever needs it says."""
    return {str(path): _of(path) for path in paths}


def _of(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
