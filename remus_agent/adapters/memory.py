"""This process's memory, kept from being written out to a disk that may wait for this process."""

from __future__ import annotations

import ctypes
import logging
import os
from typing import Final

log = logging.getLogger(__name__)

_CURRENT: Final = 1
_FUTURE: Final = 2
_ONFAULT: Final = 4


def lock() -> None:
    """Keep every page that is used, now or later, in memory (mlockall(2), with MCL_ONFAULT). A guest's write waits for the tap;
    a tap that waits for its own page from a full dom0 would wait for that write. Where it is refused, the log says so."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_CURRENT | _FUTURE | _ONFAULT) != 0:
        log.warning("memory cannot be locked: %s; set LimitMEMLOCK=infinity", os.strerror(ctypes.get_errno()))
