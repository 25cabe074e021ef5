"""Xen's configuration tree through libxenstore. No numpy here: the supervisor uses this.

Paths: docs/misc/xenstore-paths.pandoc in Xen's source.
"""

from __future__ import annotations

import ctypes as ct
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import Any, Final

from remus_agent.adapters.xen.libs import Libraries, failed

_libc = ct.CDLL(None, use_errno=True)
_free: Final[Callable[..., Any]] = _libc.free
_libc.free.restype, _libc.free.argtypes = None, (ct.c_void_p,)


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One that waits for xenstored. text: the call."""

    text: str


_waiting: Final[dict[int, Request]] = {}
"""By the thread that waits. There is no limit in libxenstore: who must not wait looks here (`xen_thread`)."""


def request_of(thread: int) -> Request | None:
    """What a thread (`threading.get_ident`) asks xenstored right now. Another object for each request. From any thread."""
    return _waiting.get(thread)


@contextmanager
def _asking(text: str) -> Iterator[None]:
    thread = get_ident()
    _waiting[thread] = Request(text)
    try:
        yield
    finally:
        del _waiting[thread]


class XenStore:
    """One connection to xenstored. A missing node reads as None; every other failure raises
    HypervisorError."""

    def __init__(self, libs: Libraries) -> None:
        self._libs = libs
        with _asking("xs_open"):
            self._handle: int | None = libs.xs_open(0)
        if not self._handle:
            raise failed("xs_open", operation="connect to xenstored", hint="check that xenstored runs")

    def read(self, path: str, transaction: int = 0) -> str | None:
        """The node's value, None when there is no such node."""
        length = ct.c_uint()
        with _asking(f"xs_read {path}"):
            raw = self._libs.xs_read(self._handle, transaction, path.encode(), ct.byref(length))
        if not raw:
            self._missing(f"xs_read {path}")
            return None
        try:
            return ct.string_at(raw, length.value).decode("utf-8", "surrogateescape")
        finally:
            _free(raw)

    def write(self, path: str, value: str, transaction: int = 0) -> None:
        data = value.encode("utf-8", "surrogateescape")
        with _asking(f"xs_write {path}"):
            written = self._libs.xs_write(self._handle, transaction, path.encode(), data, len(data))
        if not written:
            raise failed(f"xs_write {path}")

    def remove(self, path: str) -> None:
        """Remove a node and all below it; a missing one is fine."""
        with _asking(f"xs_rm {path}"):
            removed = self._libs.xs_rm(self._handle, 0, path.encode())
        if not removed:
            self._missing(f"xs_rm {path}")

    def directory(self, path: str) -> list[str]:
        """Names below a node; none when it is missing."""
        count = ct.c_uint()
        with _asking(f"xs_directory {path}"):
            names = self._libs.xs_directory(self._handle, 0, path.encode(), ct.byref(count))
        if not names:
            self._missing(f"xs_directory {path}")
            return []
        try:
            return [names[index].decode() for index in range(count.value)]
        finally:
            _free(names)

    def swap(self, path: str, expected: str, value: str) -> bool:
        """Write value if the node reads as expected, in one transaction; False if it reads otherwise."""
        while True:
            with _asking("xs_transaction_start"):
                transaction = self._libs.xs_transaction_start(self._handle)
            if not transaction:
                raise failed("xs_transaction_start")
            matches = False
            try:
                matches = self.read(path, transaction) == expected
                if matches:
                    self.write(path, value, transaction)
            except BaseException:
                self._end(transaction, abort=True)
                raise
            if self._end(transaction, abort=not matches):
                return matches
            if ct.get_errno() != errno.EAGAIN:
                raise failed(f"xs_transaction_end {path}")

    def resume_domain(self, domid: int) -> None:
        """XS_RESUME: xenstored forgets that it saw the domain shut down, so that it reports the next time
        again."""
        with _asking(f"xs_resume_domain {domid}"):
            resumed = self._libs.xs_resume_domain(self._handle, domid)
        if not resumed:
            raise failed(f"xs_resume_domain {domid}")

    def close(self) -> None:
        """Safe to call twice."""
        handle, self._handle = self._handle, None
        if handle:
            self._libs.xs_close(handle)

    def _end(self, transaction: int, *, abort: bool) -> bool:
        with _asking("xs_transaction_end"):
            return bool(self._libs.xs_transaction_end(self._handle, transaction, abort))

    def _missing(self, call: str) -> None:
        if ct.get_errno() != errno.ENOENT:
            raise failed(call)
