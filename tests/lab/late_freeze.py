"""Holds a guest right when it has accepted a request to suspend, inside dom0: to its primary it is one that freezes too late.

    python3 late_freeze.py DOMID

Waits for a request and its acceptance, pauses the domain, prints "held", and lets it go on when its standard input ends. Exit
status 1: nobody asked the domain to suspend within ASKED seconds.
"""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path

ASKED = 120.0
REQUEST = b"suspend"
ACCEPTED = b""


class Store:
    """One entry of xenstore, read by the library: a process a look would be too late."""

    def __init__(self, path: str) -> None:
        self._path = path.encode()
        self._libc = ctypes.CDLL(None)
        self._libc.free.argtypes = (ctypes.c_void_p,)
        self._lib = load("libxenstore")
        self._lib.xs_open.restype = ctypes.c_void_p
        self._lib.xs_open.argtypes = (ctypes.c_ulong,)
        self._lib.xs_read.restype = ctypes.c_void_p
        self._lib.xs_read.argtypes = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint))
        self._handle = self._lib.xs_open(0)

    def read(self) -> bytes | None:
        size = ctypes.c_uint()
        found = self._lib.xs_read(self._handle, 0, self._path, ctypes.byref(size))
        if not found:
            return None
        try:
            return ctypes.string_at(found, size.value)
        finally:
            self._libc.free(found)


def load(name: str) -> ctypes.CDLL:
    """A library of Xen's, whichever version this host has."""
    return ctypes.CDLL(str(min(Path("/usr/lib/x86_64-linux-gnu").glob(f"{name}.so.*"))))


def accepted(entry: Store) -> bool:
    """Whether a request came and was accepted in time."""
    end, asked = time.monotonic() + ASKED, False
    while time.monotonic() < end:
        value = entry.read()
        if asked and value == ACCEPTED:
            return True
        asked = asked or value == REQUEST
    return False


def main() -> int:
    domid = int(sys.argv[1])
    xen = load("libxenctrl")
    xen.xc_interface_open.restype = ctypes.c_void_p
    xen.xc_interface_open.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint)
    for call in (xen.xc_domain_pause, xen.xc_domain_unpause):
        call.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    handle = xen.xc_interface_open(None, None, 0)
    if not accepted(Store(f"/local/domain/{domid}/control/shutdown")):
        print(f"domain {domid} was not asked to suspend within {ASKED:g} s", file=sys.stderr)
        return 1
    if xen.xc_domain_pause(handle, domid) != 0:
        print(f"domain {domid} cannot be paused", file=sys.stderr)
        return 1
    try:
        print("held", flush=True)
        sys.stdin.read()
    finally:
        xen.xc_domain_unpause(handle, domid)
    return 0


if __name__ == "__main__":
    sys.exit(main())
