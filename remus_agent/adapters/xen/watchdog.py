"""Xen's watchdog of dom0: `fence_ports.Watchdog` by SCHEDOP_watchdog.

Xen has two for each domain and gives them the numbers 1 and 2. When one of dom0's runs out, Xen resets the machine, after its
crash kernel where one is loaded. It can be asked for none of this: not whether a watchdog runs, nor whose it is. So the number is
noted in a file that lasts as long as the boot, and an agent that finds the note goes on with that watchdog.

The note is written after the hypercall, because only that tells the number. An agent that is killed between the two, within
microseconds, leaves a watchdog that nobody knows of: the machine is reset.
"""

from __future__ import annotations

import ctypes as ct
import errno
import logging
from pathlib import Path
from typing import Final

import msgspec

from remus_agent.adapters.journal import directory
from remus_agent.adapters.xen.control import Control
from remus_agent.adapters.xen.libs import failed
from remus_agent.errors import HypervisorError

log = logging.getLogger(__name__)

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_NEW: Final = 0
"""Instead of a number: arm one that is free. Never with 0 seconds, which resets the machine at once."""
_OPERATION: Final = "watchdog"


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is armed. id: Xen's number of it. boot: the kernel's name of the boot in which it was."""

    id: int
    boot: str


class XenWatchdog:
    """control: for this alone, because it is used from the event loop's thread. note: the file. boot: where the kernel names the
    boot."""

    def __init__(self, control: Control, note: Path, boot: Path = BOOT_ID) -> None:
        self._control = control
        self._path = note
        self._boot = boot.read_text().strip()
        self._id = self._noted()

    @property
    def armed(self) -> bool:
        return self._id is not None

    def arm(self, seconds: int) -> None:
        if self._id is not None:
            raise ValueError("it is armed already")
        _check(seconds)
        number = self._call(_NEW, seconds)
        if number <= 0:
            raise self._failed("arm", "it is not armed")
        try:
            directory.replace_file(self._path, msgspec.json.encode(Note(number, self._boot)) + b"\n")
        except OSError as error:
            self._id = number
            self.disarm()
            raise HypervisorError(
                f"{self._path} cannot be written: {error.strerror}",
                operation=_OPERATION,
                left="it is not armed: the next agent would not know of it",
                hint=f"make room below {self._path.parent}",
            ) from error
        self._id = number

    def pet(self, seconds: int) -> None:
        number = self._armed()
        _check(seconds)
        if self._call(number, seconds):
            gone = ct.get_errno() == errno.EINVAL
            error = self._failed("pet", "somebody has disarmed it" if gone else "the machine is reset when it runs out")
            if gone:
                self._forget()
            raise error

    def disarm(self) -> None:
        if self._id is None:
            return
        if self._call(self._id, 0):
            if ct.get_errno() != errno.EINVAL:
                raise self._failed("disarm", "it is armed: the machine is reset when it runs out")
            log.warning("watchdog %d was disarmed by somebody else", self._id)
        self._forget()

    def _call(self, number: int, seconds: int) -> int:
        ct.set_errno(0)
        return int(self._control.libs.xc_watchdog(self._control.handle, number, seconds))

    def _armed(self) -> int:
        if self._id is None:
            raise ValueError("it is not armed")
        return self._id

    def _noted(self) -> int | None:
        """The number that an earlier agent of this boot has left."""
        try:
            note = msgspec.json.decode(self._path.read_bytes(), type=Note)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            # Not to start would make the reset certain.
            log.critical(
                "%s cannot be used: %s. What an earlier agent has armed resets this host soon", self._path, error
            )
            return None
        if note.boot != self._boot:
            return None
        return note.id

    def _forget(self) -> None:
        """After it was disarmed. A note that stays names a number that Xen refuses, or by then another program's."""
        self._id = None
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.error("%s cannot be removed: %s", self._path, error)

    def _failed(self, doing: str, left: str) -> HypervisorError:
        hint = "the agent needs root in dom0"
        if ct.get_errno() == errno.ENOSPC:
            hint = "Xen has two for dom0 and both are in use: by xenwatchdogd, the kernel's xen_wdt, or an agent that was killed"
        return failed(f"xc_watchdog, to {doing}", operation=_OPERATION, left=left, hint=hint)


def _check(seconds: int) -> None:
    if seconds < 1:
        raise ValueError("less than a second would reset the machine at once")
