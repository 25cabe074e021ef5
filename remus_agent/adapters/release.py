"""Which release this process runs. Two builds of one version are two releases."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

MARK: Final = ".complete"
"""What the module remus_release leaves in the folder of a release."""


def running(prefix: Path | None = None) -> str | None:
    """Its name, `VERSION-BUILD`: that of the folder of its Python environment. None for one that nobody has installed as a
    release, as a checkout. prefix: the folder; None: this process's."""
    folder = Path(sys.prefix) if prefix is None else prefix
    return folder.name if (folder / MARK).is_file() else None
