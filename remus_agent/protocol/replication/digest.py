"""The end-to-end check of one epoch: xxh3_128 over its stream bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from xxhash import xxh3_128

from remus_agent.protocol.replication.frames import Buffer

DIGEST_BYTES: Final = 16


class EpochDigest:
    """Digest over the PREAMBLE payload (only in epoch 1) and all STREAM payload bytes of one epoch, in order.

    How the bytes are cut into buffers makes no difference. Make a new one for each epoch.
    """

    def __init__(self) -> None:
        self._state = xxh3_128()
        self._bytes = 0

    @property
    def stream_bytes(self) -> int:
        """Bytes digested so far."""
        return self._bytes

    def update(self, data: Buffer) -> None:
        """Take in one contiguous buffer; nothing is copied."""
        self._state.update(data)
        self._bytes += data.nbytes if isinstance(data, memoryview) else len(data)

    def update_all(self, buffers: Iterable[Buffer]) -> None:
        """Take in several buffers in order."""
        for data in buffers:
            self.update(data)

    def digest(self) -> bytes:
        """The 16 bytes so far, as EPOCH_END and MEMORY_ACK carry them."""
        return self._state.digest()
