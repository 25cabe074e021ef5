"""A block device or a regular file, past the page cache, used by nobody else.

Nothing here knows of epochs. Every call blocks and raises OSError; `failures` says what that means to a person.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import stat
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from remus_agent.adapters.disk.geometry import measure
from remus_agent.adapters.disk.identity import Identity, identify
from remus_agent.protocol.replication.frames import Buffer

BOUNCE_BYTES: Final = 4 << 20
"""Size of the aligned buffer through which everything goes (one a thread), and so the largest single write."""

_BLKDISCARD: Final = 0x1277
_BLKZEROOUT: Final = 0x127F
_KEEP_SIZE: Final = 1
_PUNCH_HOLE: Final = 2
_ZERO_RANGE: Final = 16
_UNSUPPORTED: Final = (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS)
_PROBE: Final = 512

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class BlockFile(Protocol):
    """Random access to a device's bytes. Offsets and lengths are multiples of `sector`. One user, but
    several threads of it may write at the same time."""

    @property
    def size(self) -> int:
        """Bytes it holds."""
        ...

    @property
    def sector(self) -> int:
        """Logical sector size in bytes: what it reads and writes as a whole."""
        ...

    @property
    def identity(self) -> Identity:
        """Which device it is, as it was when it was opened."""
        ...

    def pread(self, offset: int, length: int) -> memoryview:
        """The bytes there; only valid until this thread's next call."""
        ...

    def pwrite(self, offset: int, parts: Sequence[Buffer]) -> None:
        """Write the parts one after the other from offset on, in as few calls as possible. Not durable yet."""
        ...

    def write_zeroes(self, offset: int, length: int) -> None:
        """The run reads as zeroes afterwards. Not durable yet."""
        ...

    def discard(self, offset: int, length: int) -> None:
        """The run has no defined content afterwards. A device that cannot discard keeps what it has."""
        ...

    def fdatasync(self) -> None:
        """Everything written before is durable when it returns."""
        ...

    def close(self) -> None:
        """Let go of it. Safe to call twice."""
        ...


class Opener(Protocol):
    """How block files are opened: `open_block_file`, or a fake."""

    def __call__(self, path: Path, *, sector: int, exclusive: bool = True) -> BlockFile: ...


class RawBlockFile:
    """`BlockFile` over a descriptor, which it owns. Made by `open_block_file`."""

    def __init__(self, fd: int, size: int, sector: int, identity: Identity, *, device: bool) -> None:
        self._fd = fd
        self._identity = identity
        self._size = size
        self._sector = sector
        self._device = device
        self._local = threading.local()
        self._no_discard = False

    @property
    def size(self) -> int:
        """Bytes it holds."""
        return self._size

    @property
    def sector(self) -> int:
        """Logical sector size in bytes."""
        return self._sector

    @property
    def identity(self) -> Identity:
        """Which device it is."""
        return self._identity

    def pread(self, offset: int, length: int) -> memoryview:
        """The bytes there; only valid until the next call. Raises OSError, EIO when it ends early."""
        view = self._buffer()[:length] if length <= BOUNCE_BYTES else memoryview(mmap.mmap(-1, length))
        done = 0
        while done < length:
            got = os.preadv(self._fd, [view[done:]], offset + done)
            if got == 0:
                raise OSError(errno.EIO, "it ends early")
            done += got
        return view

    def pwrite(self, offset: int, parts: Sequence[Buffer]) -> None:
        """Gather the parts in the aligned buffer and write it whenever it is full. Raises OSError."""
        bounce = self._buffer()
        filled = 0
        for part in parts:
            data = memoryview(part).cast("B")
            at = 0
            while at < len(data):
                take = min(len(data) - at, BOUNCE_BYTES - filled)
                bounce[filled : filled + take] = data[at : at + take]
                filled += take
                at += take
                if filled == BOUNCE_BYTES:
                    self._write(offset, bounce)
                    offset += filled
                    filled = 0
        if filled:
            self._write(offset, bounce[:filled])

    def write_zeroes(self, offset: int, length: int) -> None:
        """Let the device or the file system write them if it can. Raises OSError."""
        if self._device:
            done = self._try(lambda: self._ioctl(_BLKZEROOUT, offset, length))
        else:
            done = self._try(lambda: _fallocate(self._fd, _ZERO_RANGE | _KEEP_SIZE, offset, length)) or self._try(
                lambda: _fallocate(self._fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length)
            )
        if done:
            return
        zeroes = bytes(min(length, BOUNCE_BYTES))
        end = offset + length
        while offset < end:
            take = min(end - offset, len(zeroes))
            self.pwrite(offset, [memoryview(zeroes)[:take]])
            offset += take

    def discard(self, offset: int, length: int) -> None:
        """Give the run back to the device or the file system, if it takes it. Raises OSError."""
        if self._no_discard:
            return
        if self._device:
            done = self._try(lambda: self._ioctl(_BLKDISCARD, offset, length))
        else:
            done = self._try(lambda: _fallocate(self._fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length))
        self._no_discard = not done

    def fdatasync(self) -> None:
        """Everything written before is durable when it returns. Raises OSError; then a second call proves nothing."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Let go of it. Safe to call twice."""
        fd, self._fd = self._fd, -1  # its number is somebody else's afterwards, also when that fails
        if fd >= 0:
            os.close(fd)

    def _buffer(self) -> memoryview:
        bounce: memoryview | None = getattr(self._local, "bounce", None)
        if bounce is None:
            bounce = self._local.bounce = memoryview(mmap.mmap(-1, BOUNCE_BYTES))
        return bounce

    def _write(self, offset: int, view: memoryview) -> None:
        done = 0
        while done < len(view):
            wrote = os.pwrite(self._fd, view[done:], offset + done)
            if wrote == 0:
                raise OSError(errno.EIO, "it takes no more")
            done += wrote

    def _ioctl(self, request: int, offset: int, length: int) -> None:
        fcntl.ioctl(self._fd, request, struct.pack("=QQ", offset, length))

    @staticmethod
    def _try(call: Callable[[], None]) -> bool:
        """False when the kernel cannot do it here."""
        try:
            call()
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return False
            raise
        return True


def open_block_file(path: Path, *, sector: int, exclusive: bool = True) -> RawBlockFile:
    """Open a block device (O_EXCL) or a regular file (with a lock) for reading and writing.

    sector: what a regular file, which has no sectors, is taken to have. exclusive: False only to look at it. Raises
    OSError: EBUSY or EAGAIN when somebody else uses it, ENOTBLK when it is neither.
    """
    mode = path.stat().st_mode
    if not stat.S_ISBLK(mode) and not stat.S_ISREG(mode):
        raise OSError(errno.ENOTBLK, os.strerror(errno.ENOTBLK), str(path))
    device = stat.S_ISBLK(mode)
    flags = (os.O_RDWR if exclusive else os.O_RDONLY) | os.O_CLOEXEC
    if device and exclusive:
        flags |= os.O_EXCL
    fd = _open_direct(path, flags)
    try:
        if device:
            size, sector = measure(fd)
        else:
            if exclusive:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = os.fstat(fd).st_size
        return RawBlockFile(fd, size, sector, identify(fd), device=device)
    except BaseException:
        os.close(fd)
        raise


def _open_direct(path: Path, flags: int) -> int:
    """Open past the page cache; through it on file systems that cannot, or not in units of a sector."""
    try:
        fd = os.open(path, flags | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags)
    if stat.S_ISBLK(os.fstat(fd).st_mode):
        return fd
    try:
        os.preadv(fd, [memoryview(mmap.mmap(-1, mmap.PAGESIZE))[:_PROBE]], _PROBE)
    except OSError:
        os.close(fd)
        return os.open(path, flags)
    return fd


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    if _LIBC.fallocate(fd, mode, offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
