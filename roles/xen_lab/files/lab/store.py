"""A cache of finished folders: a folder is complete or it is not there.

A folder is built under a temporary name while a lock on its final name is held, and renamed when it is
finished. Whoever gets the lock removes what an interrupted builder left.
"""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from lab.errors import LabError
from lab.progress import Progress


def require_root(what: str) -> None:
    """Raise LabError for who is not root, and so cannot build it."""
    if os.geteuid() != 0:
        raise LabError(f"building {what} needs root")


def ensure_built(folder: Path, what: str, build: Callable[[Path], None], say: Progress) -> bool:
    """Make FOLDER with BUILD unless it exists, and say so where it does; True when it was built now."""
    changed = build_once(folder, build, say)
    if not changed:
        say(f"{what}: cached as {folder.name}")
    return changed


def build_once(folder: Path, build: Callable[[Path], None], say: Progress) -> bool:
    """Make FOLDER with BUILD unless it exists; True when it was built now."""
    if folder.exists():
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder.with_name(f".{folder.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{folder.name} is being built by another command; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return False
        temporary = folder.with_name(f".{folder.name}.new")
        if temporary.exists():
            say(f"removing what an interrupted build of {folder.name} left")
            shutil.rmtree(temporary)
        temporary.mkdir()
        try:
            build(temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        os.sync()
        temporary.rename(folder)
        return True
    finally:
        os.close(lock)
