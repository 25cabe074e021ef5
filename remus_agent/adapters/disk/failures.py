"""What a failed call on a disk or its journal is to a person."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from remus_agent.errors import DiskError, JournalError

_IN_USE: Final = "is in use"
_GONE: Final = "has disappeared"

_WHAT: Final = {
    errno.EBUSY: _IN_USE,
    errno.EAGAIN: _IN_USE,
    errno.ENXIO: _GONE,
    errno.ENODEV: _GONE,
    errno.ENOENT: "does not exist",
}
_HINTS: Final = {
    errno.EBUSY: "`lsblk {path}` and `fuser -v {path}` show what holds it; one agent at a time may use it",
    errno.ENXIO: "look at the kernel's log and at `lsblk`, bring the device back, then begin a new session",
    errno.ENOENT: "create it, or correct its path in the configuration",
    errno.EIO: "the device under {path} fails; look at the kernel's log and replace it",
    errno.ENOSPC: "free space below {path}: a file system or a thin pool is full",
    errno.EDQUOT: "free space or raise the quota of {path}",
    errno.EROFS: "{path} is read-only; look at the kernel's log, or make it writable with `blockdev --setrw`",
    errno.EACCES: "the agent must run as root",
    errno.ENOTBLK: "give a block device or a regular file",
}
_SAME: Final = {errno.EAGAIN: errno.EBUSY, errno.ENODEV: errno.ENXIO, errno.EPERM: errno.EACCES}


def tap_let_go(vdev: str, domain: str, operation: str, hint: str) -> DiskError:
    """The error where the kernel has let go of a disk's tap: md has failed that leg."""
    return DiskError(
        f"the kernel has let go of the tap of {vdev}",
        operation=operation,
        domain=domain,
        left="the guest's disk goes on, md remembers what changes",
        hint=hint,
    )


class Role(Enum):
    """What a file is for. The value is how it is called in messages."""

    DEVICE = "the device"
    JOURNAL = "the disk's journal"


@dataclass(frozen=True, slots=True)
class Place:
    """Which file of which disk an error is about; it makes the errors."""

    domain: str
    vdev: str
    path: Path
    role: Role

    def error(
        self, message: str, *, epoch: int | None = None, left: str | None = None, hint: str | None = None
    ) -> DiskError | JournalError:
        """DiskError about a device, JournalError about a journal. message: goes on after the file's path."""
        kind = DiskError if self.role is Role.DEVICE else JournalError
        return kind(
            f"{self.vdev}: {self.role.value} {self.path} {message}",
            operation="hold a copy of a disk",
            domain=self.domain,
            epoch=epoch,
            left=left,
            hint=hint,
        )

    def failed(
        self, error: OSError, doing: str, *, epoch: int | None = None, left: str | None = None
    ) -> DiskError | JournalError:
        """The error for a failed call. doing: `written`, `made durable`."""
        number = error.errno or 0
        number = _SAME.get(number, number)
        reason = os.strerror(number) if number else str(error)
        said = _WHAT.get(number)
        message = f"cannot be {doing}: it {said} ({reason})" if said else f"cannot be {doing}: {reason}"
        hint = _HINTS.get(number)
        return self.error(message, epoch=epoch, left=left, hint=hint.format(path=self.path) if hint else None)

    @contextmanager
    def doing(self, what: str, *, epoch: int | None = None, left: str | None = None) -> Iterator[None]:
        """Turn an OSError inside into the error that `failed` makes."""
        try:
            yield
        except OSError as error:
            raise self.failed(error, what, epoch=epoch, left=left) from error
