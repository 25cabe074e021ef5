"""Reads of a block device past the page cache, which holds nothing of what the guest writes."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from remus_agent.errors import DiskError


class DirectReader:
    """One device, opened for reading. Blocking; for one thread at a time."""

    def __init__(self, device: Path, domain: str) -> None:
        self._device = device
        self._domain = domain
        try:
            self._fd = os.open(device, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError as error:
            raise self._failed(error, "open") from error

    def read(self, offset: int, length: int) -> memoryview:
        """Bytes of the device in memory of their own. Raises DiskError, also when the device is shorter."""
        memory = memoryview(mmap.mmap(-1, length))  # aligned to pages, as direct I/O needs it
        done = 0
        try:
            while done < length:
                count = os.preadv(self._fd, [memory[done:]], offset + done)
                if count == 0:
                    raise OSError(5, f"it ends at {offset + done}")
                done += count
        except OSError as error:
            raise self._failed(error, "read") from error
        return memory

    def close(self) -> None:
        """Let go of the device."""
        os.close(self._fd)

    def _failed(self, error: OSError, doing: str) -> DiskError:
        return DiskError(
            f"cannot {doing} {self._device}: {error.strerror}",
            operation="copy a disk",
            domain=self._domain,
            left="the guest goes on as far as its disk does",
            hint="look at the kernel's log (dmesg) and at the device",
        )
