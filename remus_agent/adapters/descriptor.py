"""Bytes of a file descriptor that somebody else opened, without a thread that waits in read(): `relay_ports.ByteSource`."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from remus_agent.errors import FileError

_PIECE: Final = 1 << 20


class DescriptorSource:
    """A pipe, a FIFO, a socket or a file, open for reading. The descriptor is not made non-blocking, because that would
    change it for every process that shares it; only one may read it."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd, self._name = fd, name
        self._memory = memoryview(bytearray(_PIECE))

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._name

    async def read(self) -> memoryview:
        """As the port says. Cancelling it loses nothing that was not read."""
        await self._readable()
        try:
            count = os.readv(self._fd, [self._memory])
        except OSError as error:
            text = os.strerror(error.errno) if error.errno else str(error)
            raise FileError(f"cannot read {self._name}: {text}") from error
        return self._memory[:count]

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        try:
            loop.add_reader(self._fd, _settle, ready)
        except PermissionError:
            await asyncio.sleep(0)  # a regular file, which has nothing to wait for
            return
        try:
            await ready
        finally:
            loop.remove_reader(self._fd)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
