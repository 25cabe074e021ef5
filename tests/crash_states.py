"""Every state that a crash can leave on storage, given what was written and flushed, in order.

Between two flushes of a file any of its writes may have reached the medium and any not, whatever their order and that of
writes to other files; one write may have reached it in part, by whole sectors. A flush makes all earlier writes of its
file certain.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remus_agent.adapters.disk.identity import Identity

JUNK = 0xDD
"""What a discarded byte reads as."""
SECTOR = 512
EXHAUSTIVE = 8
"""Up to this many writes under way, all subsets are tried."""


@dataclass(frozen=True, slots=True)
class Write:
    """data: what is there afterwards. mark: what the program was doing, for the oracle."""

    file: str
    offset: int
    data: bytes
    mark: object = None


@dataclass(frozen=True, slots=True)
class Sync:
    file: str


@dataclass(frozen=True, slots=True)
class Note:
    """Not an operation: what the world was like at this point."""

    what: Any


@dataclass
class Recorder:
    """What was done to some files, in order. mark: goes into the writes that follow."""

    log: list[Write | Sync | Note] = field(default_factory=list)
    mark: object = None

    def write(self, file: str, offset: int, data: bytes) -> None:
        self.log.append(Write(file, offset, data, self.mark))

    def sync(self, file: str) -> None:
        self.log.append(Sync(file))

    def note(self, what: Any) -> None:
        self.log.append(Note(what))


class MemoryFile:
    """A `BlockFile` in memory that records; its identity is its name. `fail`: raised by the next write or flush, to try what
    errors do."""

    def __init__(self, name: str, content: bytearray, recorder: Recorder, sector: int = SECTOR) -> None:
        self.name = name
        self.content = content
        self.recorder = recorder
        self.sector = sector
        self.identity = Identity(name.encode().ljust(16)[:16])
        self.fail: dict[str, OSError] = {}

    @property
    def size(self) -> int:
        return len(self.content)

    def pread(self, offset: int, length: int) -> memoryview:
        self._may_fail("pread")
        assert offset + length <= len(self.content)
        return memoryview(bytes(self.content[offset : offset + length]))

    def pwrite(self, offset: int, parts: Sequence[Any]) -> None:
        self._may_fail("pwrite")
        self._put(offset, b"".join(bytes(part) for part in parts))

    def write_zeroes(self, offset: int, length: int) -> None:
        self._may_fail("write_zeroes")
        self._put(offset, bytes(length))

    def discard(self, offset: int, length: int) -> None:
        self._may_fail("discard")
        self._put(offset, bytes([JUNK]) * length)

    def fdatasync(self) -> None:
        self._may_fail("fdatasync")
        self.recorder.sync(self.name)

    def close(self) -> None:
        pass

    def _put(self, offset: int, data: bytes) -> None:
        assert offset % self.sector == len(data) % self.sector == 0, "not made of whole sectors"
        assert offset + len(data) <= len(self.content), "outside the file"
        self.content[offset : offset + len(data)] = data
        self.recorder.write(self.name, offset, data)

    def _may_fail(self, call: str) -> None:
        if call in self.fail:
            raise self.fail[call]


class MemoryFiles:
    """An `Opener` over files in memory. kind: the class that they get."""

    def __init__(
        self, contents: Mapping[str, bytearray], recorder: Recorder | None = None, kind: type[MemoryFile] = MemoryFile
    ) -> None:
        self.contents = contents
        self.recorder = recorder if recorder is not None else Recorder()
        self.kind = kind
        self.opened: dict[str, MemoryFile] = {}

    def __call__(self, path: Path, *, sector: int, exclusive: bool = True) -> MemoryFile:
        name = str(path)
        self.opened[name] = self.kind(name, self.contents[name], self.recorder, sector)
        return self.opened[name]


@dataclass(frozen=True, slots=True)
class CrashState:
    """at: how much of the log was done. files: what the medium holds. marks: of all writes that are in it, also in part.
    how: the writes that were not certain and are in it, for a person."""

    at: int
    files: dict[str, bytearray]
    marks: frozenset[object]
    how: str


def crash_states(
    log: Sequence[Write | Sync | Note], start: Mapping[str, bytes], rng: random.Random
) -> Iterator[CrashState]:
    """All states when few writes are under way between flushes, a fair choice otherwise; each only once, just before the
    flush that ends its possibility."""
    certain = {name: bytearray(content) for name, content in start.items()}
    marks: set[object] = set()
    pending: list[Write] = []
    for at, entry in enumerate([*log, None]):
        if isinstance(entry, Write):
            pending.append(entry)
            continue
        if isinstance(entry, Note):
            continue
        for how, chosen in _choices(pending, rng):
            files = {name: bytearray(content) for name, content in certain.items()}
            for write in chosen:
                files[write.file][write.offset : write.offset + len(write.data)] = write.data
            yield CrashState(at, files, frozenset(marks | {write.mark for write in chosen}), how)
        if isinstance(entry, Sync):
            for write in pending:
                if write.file == entry.file:
                    certain[write.file][write.offset : write.offset + len(write.data)] = write.data
                    marks.add(write.mark)
            pending = [write for write in pending if write.file != entry.file]


def _choices(pending: list[Write], rng: random.Random) -> Iterator[tuple[str, list[Write]]]:
    numbers = range(len(pending))
    for subset in _subsets(len(pending), rng):
        yield f"{list(subset)} of {len(pending)}", [pending[number] for number in subset]
    for torn in numbers:
        others = [number for number in numbers if number != torn]
        some = [number for number in others if rng.random() < 0.5]
        for company in {tuple(others), (), tuple(some)}:
            for how, parts in _tears(pending[torn], rng):
                chosen = [[pending[number]] if number != torn else parts for number in sorted([*company, torn])]
                yield f"{list(company)} and {how} of {torn} of {len(pending)}", list(itertools.chain(*chosen))


def _subsets(count: int, rng: random.Random) -> Iterator[tuple[int, ...]]:
    if count <= EXHAUSTIVE:
        for size in range(count + 1):
            yield from itertools.combinations(range(count), size)
        return
    everything = range(count)
    found: set[tuple[int, ...]] = {(), tuple(everything)}
    found.update(itertools.combinations(everything, 1))
    found.update(itertools.combinations(everything, 2))
    found.update(itertools.combinations(everything, count - 1))
    found.update(tuple(range(length)) for length in everything)
    found.update(tuple(number for number in everything if rng.random() < 0.5) for _ in range(64))
    yield from sorted(found)


def _tears(write: Write, rng: random.Random) -> Iterator[tuple[str, list[Write]]]:
    """Parts of a write that are made of whole sectors, of 512 bytes and of 4 KiB."""
    for sector in (512, 4096):
        cells = [
            Write(write.file, write.offset + at, write.data[at : at + sector], write.mark)
            for at in range(0, len(write.data), sector)
        ]
        if len(cells) < 2:
            continue
        cuts = range(1, len(cells)) if len(cells) <= 6 else sorted(rng.sample(range(1, len(cells)), 5))
        for cut in cuts:
            yield f"the first {cut} x {sector} bytes", cells[:cut]
            yield f"all but the first {cut} x {sector} bytes", cells[cut:]
        yield f"every other {sector} bytes", cells[::2]
        yield f"random {sector} bytes", [cell for cell in cells if rng.random() < 0.5]
