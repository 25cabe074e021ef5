"""The socket that a save helper writes its stream into, and the records that were taken out of it.

While the guest is down the socket's own buffer takes in the epoch (kernel memory, released as it is read), so that
nobody has to read along; it is emptied when the guest runs again. While memory is seeded the buffer is kept
small instead: the helper would else copy the whole guest into it."""

from __future__ import annotations

import array
import fcntl
import mmap
import socket
import termios
from dataclasses import dataclass
from typing import Final

from remus_agent.adapters.memory import give_back
from remus_agent.adapters.xen.structs import PAGE_SIZE
from remus_agent.errors import HypervisorError
from remus_agent.protocol.stream import records
from remus_agent.protocol.stream.constants import RECORD_HEADER_SIZE, Layer
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc

PIECE: Final = 8 << 20
"""Most bytes taken out of the socket at once."""
SHALLOW: Final = 2 << 20
"""Size of the socket's buffer while memory is seeded; the kernel allows twice that."""
DEEPEST: Final = 256 << 20
"""Largest buffer asked for. What does not fit is read while the guest is down."""
SLACK: Final = 64 << 20
"""Bytes of an epoch that are not page content, at most: pfns, processor states, the p2m table's frames."""
KEPT: Final = 8 << 20
"""Bytes of memory that are kept between epochs; more is given back after use."""

_SO_SNDBUFFORCE: Final = 32
"""asm-generic/socket.h; needs CAP_NET_ADMIN and may exceed net.core.wmem_max."""
_MAP_NORESERVE: Final = 0x4000


@dataclass(frozen=True, slots=True)
class Found:
    """One whole record. raw: a view, valid until `compact` or `reset`. listed: pfns that it names; pages: how many of them
    have content."""

    kind: int
    raw: memoryview
    listed: int = 0
    pages: int = 0


class HelperStream:
    """Both ends of the socket. memory: bytes of the guest's memory. Use it from one thread."""

    def __init__(self, memory: int, name: str) -> None:
        self._name = name
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ours.setblocking(False)
        area = mmap.mmap(
            -1, memory + SLACK + PIECE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        )  # real memory only where it is used
        self._area, self._view = area, memoryview(area)
        self._start = self._filled = 0
        self._touched = 0
        self._held = 0
        self.set_depth(SHALLOW)

    @property
    def helper_fd(self) -> int:
        """The helper's end, to be inherited by it. We keep it: the buffer belongs to this end."""
        return self._theirs.fileno()

    @property
    def held_bytes(self) -> int:
        """Of memory that are there for it now; what is in the socket's buffer is the kernel's."""
        return max(self._touched, self._filled)

    def fileno(self) -> int:
        """Readable when the helper has written something."""
        return self._ours.fileno()

    @property
    def partial(self) -> int:
        """Bytes of a record that is not whole."""
        return self._filled - self._start

    @property
    def nearly_full(self) -> bool:
        """Whether the helper will soon have to wait for us."""
        return self._in_socket() * 4 > self._depth * 3

    def set_depth(self, size: int) -> None:
        """Let the socket take in so many bytes. `deferred` is False afterwards where it is smaller, because only the kernel's
        limit was to be had."""
        try:
            self._theirs.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, size)
            self.deferred = True
        except PermissionError:
            self._theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
            self.deferred = False
        self._depth = self._theirs.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)

    def grew(self) -> bool:
        """Whether the socket holds another amount than at the last call: the helper works."""
        before, self._held = self._held, self._in_socket()
        return self._held != before

    def receive(self, most: int = PIECE) -> bool:
        """Take out what is there, at most so many bytes, without waiting. True: something was.

        Raises HypervisorError when an epoch is larger than the guest's memory."""
        room = self._view[self._filled : self._filled + most]
        if not room:
            raise HypervisorError(
                f"the save helper wrote {self._filled} bytes, more than the guest has memory", domain=self._name
            )
        try:
            got = self._ours.recv_into(room)
        except BlockingIOError:
            return False
        self._filled += got
        return got > 0

    def receive_all(self) -> None:
        """Take out everything that is there."""
        while self.receive():
            pass

    def take(self, size: int) -> bytes | None:
        """The next bytes, which are no record; None when they are not all there."""
        if self._filled - self._start < size:
            return None
        self._start += size
        return bytes(self._view[self._start - size : self._start])

    @property
    def has_record(self) -> bool:
        """Whether the next record is all there."""
        header = self._header(self._start)
        return header is not None and self._filled >= header[2]

    def next_record(self) -> Found | None:
        """The next record, None when it is not all there. Raises StreamError when it cannot be one."""
        header = self._header(self._start)
        if header is None or self._filled < header[2]:
            return None
        kind, length, end = header
        raw = self._view[self._start : end]
        listed, pages = _pages(raw, length, self._start) if kind == Xc.PAGE_DATA else (0, 0)
        self._start = end
        return Found(kind, raw, listed, pages)

    def has_begun(self, kind: int) -> bool:
        """Whether a record of this type, or its first bytes, is among what was received and not taken yet."""
        at = self._start
        while (header := self._header(at)) is not None:
            if header[0] == kind:
                return True
            at = header[2]
        return False

    def compact(self) -> None:
        """Make room: records that were taken are not needed any more."""
        left = self.partial
        if left and self._start < PIECE:
            return
        self._view[:left] = self._view[self._start : self._filled]
        self._touched = self.held_bytes
        self._start, self._filled = 0, left

    def reset(self) -> None:
        """Forget everything, and give unusually much memory back."""
        touched = self.held_bytes
        if touched > KEPT:
            give_back(self._area, KEPT, -(-touched // PAGE_SIZE) * PAGE_SIZE)
        self._touched = min(touched, KEPT)
        self._start = self._filled = 0

    def close(self) -> None:
        """Safe to call twice. A helper that still writes gets EPIPE."""
        self._ours.close()
        self._theirs.close()

    def _header(self, at: int) -> tuple[int, int, int] | None:
        """(type, body length, where the record ends) of the record at this place."""
        if self._filled - at < RECORD_HEADER_SIZE:
            return None
        kind, length = records.parse_record_header(self._view, Layer.LIBXC, at, at)
        return kind, length, at + RECORD_HEADER_SIZE + records.padded(length)

    def _in_socket(self) -> int:
        """Bytes that the kernel holds, as it counts them against the buffer's size."""
        count = array.array("i", [0])
        fcntl.ioctl(self._theirs, termios.TIOCOUTQ, count)
        return count[0]


def _pages(raw: memoryview, length: int, offset: int) -> tuple[int, int]:
    """(pfns, pages with content) of a PAGE_DATA record, by its length alone: its types are the receiver's matter."""
    least = records.COUNT.size
    count = records.COUNT.unpack_from(raw, RECORD_HEADER_SIZE)[0] if length >= least else 0
    content = length - least - 8 * count
    if content < 0 or content % PAGE_SIZE:
        raise records.refused(
            "wrong length of PAGE_DATA", offset, expected=f"{count} pfns and whole pages", found=f"{length} bytes"
        )
    return count, content // PAGE_SIZE
