"""Who holds what, across a boot: a small durable file for each disk of which this host holds a backup's copy.

Whoever opens a replica calls `mark` before its mapper device is led nowhere and its content is changed; whoever hands it
over calls `clear` after everything committed was applied and before the mapper device leads to the local device. So at any
moment at which the host may die, a device whose content is not whole is marked. Without a file the disk is this host's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from remus_agent.adapters.journal import directory
from remus_agent.disk_config import Disk
from remus_agent.errors import DiskError

BACKUP: Final = "backup"


def path_of(state: Path, disk: Disk) -> Path:
    """The file. state: the agent's directory."""
    return state / "disks" / f"{disk.name}.role"


def is_backup(state: Path, disk: Disk) -> bool:
    """Whether this host holds a backup's copy of the disk. Raises DiskError when that cannot be told."""
    path = path_of(state, disk)
    try:
        said = path.read_bytes()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _failed(error.strerror or str(error), "read", disk, path) from error
    if said.strip() != BACKUP.encode():
        raise _failed(f"it says {said[:40]!r}, not {BACKUP!r}", "use", disk, path)
    return True


def mark(state: Path, disk: Disk) -> None:
    """This host holds a backup's copy from now on. Durable when it returns. Raises DiskError."""
    path = path_of(state, disk)
    try:
        directory.make(path.parent)
        directory.replace_file(path, f"{BACKUP}\n".encode())
    except OSError as error:
        raise _failed(error.strerror or str(error), "write", disk, path) from error


def clear(state: Path, disk: Disk) -> None:
    """The disk is this host's own from now on. Durable when it returns; nothing happens without a mark. Raises DiskError."""
    path = path_of(state, disk)
    try:
        path.unlink()
        directory.sync(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failed(error.strerror or str(error), "remove", disk, path) from error


def _failed(why: str, doing: str, disk: Disk, path: Path) -> DiskError:
    return DiskError(
        f"cannot {doing} {path}: {why}",
        operation="tell whose disk it is",
        domain=disk.domain,
        left="the disk was not changed",
        hint=f"find out with remusctl status {disk.domain} on both hosts whether this one is its backup; if it is, the file "
        f"must hold the word {BACKUP}, if not, remove it",
    )
