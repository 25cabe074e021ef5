"""The end-to-end check of one epoch: xxh3_128 over its stream bytes, and over what each disk of it consists of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from xxhash import xxh3_128

from remus_agent.protocol.replication.frames import Buffer

DIGEST_BYTES: Final = 16


class EpochDigest:
    """Digest over the PREAMBLE payload (only in epoch 1) and all STREAM payload bytes of one epoch, in order; of a disk,
    over all DISK_DATA payload bytes of the epoch.

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
        """The 16 bytes so far, as EPOCH_END, DISK_END and the acknowledgements carry them."""
        return self._state.digest()


def commit_digest(memory: bytes, disks: Mapping[str, bytes]) -> bytes:
    """What a commit record carries: memory's digest alone, or, of a guest with disks, xxh3_128 over memory's digest and
    those of its disks in the order of their names."""
    if not disks:
        return memory
    return xxh3_128(memory + b"".join(disks[vdev] for vdev in sorted(disks))).digest()
