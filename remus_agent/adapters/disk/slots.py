"""A disk's journal: what the disk's content is, and the epochs that may still have to be applied to it.

    4096  state, even sequence numbers  | two copies, written one after the other: a crash or a bad sector leaves one
    4096  state, odd sequence numbers   |
    S     slot of even epochs: 4096 header, then the body (`body.pack`)
    S     slot of odd epochs

A file or a device of fixed size with all its space reserved; later writes change no metadata. The state says whose
content the disk has, and on which device (`State`). It is written when a session begins, before the first byte is seeded,
after a replay and when the disk is handed over; not after each epoch, as applying an epoch again is harmless. The header
of a slot carries the digest of its body and both are made durable together: a slot that was torn counts as not staged.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from xxhash import xxh3_128

from remus_agent.adapters.disk.block_file import BlockFile
from remus_agent.adapters.disk.failures import Place
from remus_agent.adapters.disk.identity import Identity
from remus_agent.disk_ports import DiskFacts
from remus_agent.errors import ProtocolError
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.protocol.disk.wire import HEADER_BYTES, pack, parse
from remus_agent.protocol.replication.frames import Buffer

BLOCK_BYTES: Final = 4096
SLOTS: Final = 2
SMALLEST_BYTES: Final = (2 + 2 * SLOTS) * BLOCK_BYTES
"""Two blocks of state, and for each slot a header and one block of body."""

STATE_MAGIC: Final = b"RMD2"
FORMER_MAGIC: Final = b"RMD1"
SLOT_MAGIC: Final = b"RMS1"
STATE: Final = struct.Struct("<4sIQ16s16s16sQQQII16s16s")
FORMER: Final = struct.Struct("<4sIQ16s16s16sQQQII")
"""A state without a device."""
SLOT: Final = struct.Struct("<4sI16sQQQ16s")
_CRC_START: Final = 8
_SEEDING: Final = 1
_HANDED_OVER: Final = 2
_NIL: Final = uuid.UUID(int=0)
_NO_DIGEST: Final = bytes(16)
_NOT_STAGED: Final = "the epoch is not staged"
_AS_BEFORE: Final = "the disk's state is as before, or as it was to become"


@dataclass(frozen=True, slots=True)
class Standing:
    """A committed epoch of a session, which the disk's content is at."""

    session: str
    epoch: int


@dataclass(frozen=True, slots=True)
class State:
    """What is known of the disk's content.

    map_id: names everything in which it can differ from the primary's. session: the one that may write to it. base: what
    it was brought to, at least, before that session. seeding: that session, or one before it that never committed,
    changed it without a journal. handed_over: a guest has it since `base`; nothing may be applied to it any more. device: on
    which all of this is so; None when that was not noted.
    """

    map_id: str | None = None
    session: str | None = None
    base: Standing | None = None
    seeding: bool = False
    handed_over: bool = False
    device: Identity | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """Header of a slot. body_bytes, digest: of its body; extents: their number."""

    session: str
    epoch: int
    extents: int
    body_bytes: int
    digest: bytes


class DiskJournal:
    """The journal in an open file, which it owns. Calls block; they raise JournalError, after which what they wrote is
    unknown until the journal is opened again."""

    def __init__(self, file: BlockFile, place: Place, disk: DiskFacts, journal_bytes: int) -> None:
        """Read the state. Raises JournalError when it is too small, damaged or another disk's. Nothing is written."""
        self._file = file
        self._place = place
        self._disk = disk
        self._slot_bytes = slot_bytes(journal_bytes)
        if file.size < journal_bytes:
            raise place.error(
                f"is truncated: it has {file.size} bytes instead of {journal_bytes}",
                hint="if the configured size was raised, remove the file: the next session begins with a full copy",
            )
        with place.doing("read", left="nothing was changed"):
            data = bytes(file.pread(0, 2 * BLOCK_BYTES))
        self._sequence = 0
        self.state = State()
        self._read_state(data)

    @property
    def capacity(self) -> int:
        """Bytes of packed extents that fit a slot."""
        return self._slot_bytes - BLOCK_BYTES

    def save(self, state: State) -> None:
        """Write the state down, in both places, one durable before the other is touched."""
        with self._place.doing("written", left=_AS_BEFORE):
            for _ in range(2):
                block = self._pack_state(self._sequence + 1, state)
                self._file.pwrite((self._sequence + 1) % 2 * BLOCK_BYTES, [block])
                self._file.fdatasync()
                self._sequence += 1
        self.state = state

    def check(self, epoch: int, extents: Sequence[Extent]) -> None:
        """Raises JournalError when the epoch is too large for a slot."""
        length = packed_bytes(extents)
        if length > self.capacity:
            raise self._place.error(
                f"is full: epoch {epoch} needs {length} bytes and a slot has {self.capacity}",
                epoch=epoch,
                left=_NOT_STAGED,
                hint="make the journal of the disk larger in the configuration",
            )

    def write(self, session: str, epoch: int, extents: Sequence[Extent]) -> None:
        """Make an epoch that `check` let pass durable in its slot."""
        parts = pack(extents)
        length = packed_bytes(extents)
        digest = xxh3_128()
        for part in parts:
            digest.update(part)
        head = SLOT.pack(SLOT_MAGIC, 0, _bytes(session), epoch, len(extents), length, digest.digest())
        block = _sealed(SLOT_MAGIC, head)
        parts.append(bytes(-length % BLOCK_BYTES))
        with self._place.doing("written", epoch=epoch, left=_NOT_STAGED):
            self._file.pwrite(self._at(epoch), [block, *parts])
        with self._place.doing("made durable", epoch=epoch, left=_NOT_STAGED):
            self._file.fdatasync()

    def slots(self) -> list[Slot]:
        """The headers of the slots that have one, by epoch. Their bodies were not looked at."""
        found = []
        for index in range(SLOTS):
            with self._place.doing("read", left="nothing was changed"):
                block = bytes(self._file.pread(self._at(index), BLOCK_BYTES))
            slot = self._parse_slot(block)
            if slot is not None and slot.epoch % SLOTS == index:
                found.append(slot)
        return sorted(found, key=lambda slot: slot.epoch)

    def load(self, slot: Slot) -> list[Extent] | None:
        """The extents of a slot; None when its body is not the one that the header was written with."""
        with self._place.doing("read", left="nothing was changed"):
            body = bytes(
                self._file.pread(self._at(slot.epoch) + BLOCK_BYTES, -(-slot.body_bytes // BLOCK_BYTES) * BLOCK_BYTES)
            )
        body = body[: slot.body_bytes]
        if xxh3_128(body).digest() != slot.digest:
            return None
        try:
            extents = parse(body, size=self._disk.size, block=self._disk.block)
        except ProtocolError:
            return None
        return extents if len(extents) == slot.extents else None

    def close(self) -> None:
        """Let go of the file. Safe to call twice."""
        self._file.close()

    def _at(self, epoch: int) -> int:
        return 2 * BLOCK_BYTES + epoch % SLOTS * self._slot_bytes

    def _pack_state(self, sequence: int, state: State) -> bytes:
        base = state.base
        body = STATE.pack(
            STATE_MAGIC,
            0,
            sequence,
            _bytes(state.map_id),
            _bytes(state.session),
            _bytes(base.session if base else None),
            base.epoch if base else 0,
            self._disk.size,
            self._slot_bytes,
            self._disk.block,
            _SEEDING * state.seeding | _HANDED_OVER * state.handed_over,
            state.device.digest if state.device else _NO_DIGEST,
            _bytes(state.device.boot if state.device else None),
        )
        return _sealed(STATE_MAGIC, body)

    def _read_state(self, data: bytes) -> None:
        """Take the newest good block. A journal of zeroes is a new one."""
        if not any(data):
            return
        for index in range(2):
            block = data[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES]
            if _whole(STATE_MAGIC, STATE, block):
                *words, device, boot = STATE.unpack_from(block)
            elif _whole(FORMER_MAGIC, FORMER, block):
                words, device, boot = list(FORMER.unpack_from(block)), _NO_DIGEST, _NIL.bytes
            else:
                continue
            _, _, sequence, map_id, session, base, epoch, size, slot, sector, flags = words
            if sequence % 2 != index or sequence <= self._sequence:
                continue
            self._check(size, slot, sector)
            base_session = _text(base)
            self._sequence = sequence
            self.state = State(
                map_id=_text(map_id),
                session=_text(session),
                base=Standing(base_session, epoch) if base_session is not None else None,
                seeding=bool(flags & _SEEDING),
                handed_over=bool(flags & _HANDED_OVER),
                device=Identity(device, _text(boot)) if device != _NO_DIGEST else None,
            )
        if self._sequence == 0:
            raise self._place.error(
                "is damaged: neither copy of its header is whole",
                left="nothing was changed; what the disk holds is not known",
                hint="zero its first 8 KiB (or remove the file): the next session begins with a full copy",
            )

    def _check(self, size: int, slot: int, sector: int) -> None:
        hint = "zero its first 8 KiB (or remove the file): the next session begins with a full copy"
        if (size, sector) != (self._disk.size, self._disk.block):
            raise self._place.error(
                f"belongs to a disk of {size} bytes in sectors of {sector}, not to this one of {self._disk.size} in"
                f" sectors of {self._disk.block}",
                left="nothing was changed",
                hint=hint,
            )
        if slot != self._slot_bytes:
            raise self._place.error(
                f"was made with slots of {slot} bytes, and its configured size gives slots of {self._slot_bytes}",
                left="nothing was changed",
                hint=f"configure its former size, or {hint}",
            )

    def _parse_slot(self, block: bytes) -> Slot | None:
        if not _whole(SLOT_MAGIC, SLOT, block):
            return None
        _, _, session, epoch, extents, body_bytes, digest = SLOT.unpack_from(block)
        name = _text(session)
        if name is None or body_bytes > self.capacity:
            return None
        return Slot(name, epoch, extents, body_bytes, digest)


def packed_bytes(extents: Sequence[Extent]) -> int:
    """Bytes that `pack` makes of them."""
    return sum(HEADER_BYTES + (extent.length if extent.op is Op.WRITE else 0) for extent in extents)


def slot_bytes(journal_bytes: int) -> int:
    """Bytes of each slot in a journal of that size, its header included."""
    return (journal_bytes // BLOCK_BYTES - 2) // SLOTS * BLOCK_BYTES


def _sealed(magic: bytes, body: bytes) -> bytes:
    crc = struct.pack("<I", crc32(body[_CRC_START:]))
    return (magic + crc + body[_CRC_START:]).ljust(BLOCK_BYTES, b"\0")


def _whole(magic: bytes, layout: struct.Struct, block: Buffer) -> bool:
    crc = struct.pack("<I", crc32(block[_CRC_START : layout.size]))
    return block[:_CRC_START] == magic + crc


def _bytes(name: str | None) -> bytes:
    return (uuid.UUID(name) if name is not None else _NIL).bytes


def _text(raw: bytes) -> str | None:
    name = uuid.UUID(bytes=raw)
    return None if name == _NIL else str(name)
