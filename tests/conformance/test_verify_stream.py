"""The reader against Xen's own checker, verify-stream-v2, on mutated streams: what it refuses, we refuse, but for the
differences that docs/protocol.md lists.

The checker runs in this process, because starting Python for each of some thousand streams takes minutes; one test runs
it as a command to show that this makes no difference."""

from __future__ import annotations

import itertools
import os
import random
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from io import BytesIO
from pathlib import Path
from types import ModuleType

import pytest
from streams import samples
from xen_checker import find, modules_of

from remus_agent.errors import StreamError
from remus_agent.protocol.stream.framing import Record, pack_record
from remus_agent.protocol.stream.reader import StreamReader

MUTANTS = 1500
"""For each base stream."""
CONTEXT_ONLY = pack_record(3, struct.pack("<II", 2, 0) + b"QEVM state")
BASES = {
    "hvm": samples.start() + samples.page_data([(0, 1), (0xE, 2)]) + samples.hvm_state() + samples.END
    + CONTEXT_ONLY + samples.END,
    "hvm_version_2": samples.start(samples.HVM, 2) + samples.page_data([(0xF, 1)]) + samples.hvm_state()
    + samples.PLAIN_END,
    "pv": samples.pv_plain(),
    "pv_version_2": samples.pv_plain(2),
}  # fmt: skip
DIFFERENCES = {
    "optional records": re.compile(r"Unrecognised record type (0x)?[89a-f][0-9a-f]{7}$"),
    "xenstore data on Python 3": re.compile(r"Data not NUL terminated$"),
}
"""Its refusals that are not ours, by the last line of its report; the reasons stand in docs/protocol.md."""


@dataclass(frozen=True)
class Checker:
    """Xen's checker. path: the command."""

    path: Path
    module: ModuleType

    def refusal(self, stream: bytes) -> str | None:
        """The last line of its report, None where it finds nothing wrong."""
        said: list[str] = []
        self.module.__dict__.update(fin=BytesIO(stream), err=said.append)
        code = self.module.read_stream("xl")
        assert (code == 0) == (not said)
        return said[-1].strip().splitlines()[-1] if code else None


@pytest.fixture(scope="module")
def checker() -> Checker:
    found = find()
    modules = str(modules_of(found))
    sys.path.insert(0, modules)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader = SourceFileLoader("verify_stream_v2", str(found))
        spec = spec_from_loader(loader.name, loader)
        assert spec is not None
        module = module_from_spec(spec)
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
        sys.path.remove(modules)
    return Checker(found, module)


def our_refusal(stream: bytes) -> StreamError | None:
    reader = StreamReader()
    try:
        list(reader.views(stream))
        reader.close()
    except StreamError as error:
        return error
    return None


def boundaries(stream: bytes) -> list[int]:
    """Where the records of a whole stream begin, and its end."""
    events = StreamReader().feed(stream)
    return [event.offset for event in events if isinstance(event, Record)] + [len(stream)]


def flip(stream: bytearray, edges: list[int], dice: random.Random) -> None:
    at = dice.randrange(100, len(stream))
    stream[at] ^= 1 << dice.randrange(8)


def retype(stream: bytearray, edges: list[int], dice: random.Random) -> None:
    struct.pack_into("<I", stream, dice.choice(edges[:-1]), dice.choice([*range(0x14), 0x80000001, 0x7FFFFFFF]))


def resize(stream: bytearray, edges: list[int], dice: random.Random) -> None:
    at = dice.choice(edges[:-1]) + 4
    (length,) = struct.unpack_from("<I", stream, at)
    struct.pack_into("<I", stream, at, max(0, length + dice.choice([-16, -8, -1, 1, 8, 16])))


def refill(stream: bytearray, edges: list[int], dice: random.Random) -> None:
    """A field near the front of a record, where the fixed parts are."""
    at = min(dice.choice(edges[:-1]) + 4 * dice.randrange(2, 8), len(stream) - 4)
    struct.pack_into("<I", stream, at, dice.choice([0, 1, 2, 5, 0x400, 0x50000000, 0xF0000000, 0xFFFFFFFF]))


def rearrange(stream: bytearray, edges: list[int], dice: random.Random) -> None:
    """A record left out, doubled or moved."""
    parts = [bytes(stream[a:b]) for a, b in itertools.pairwise(edges)]
    number = dice.randrange(len(parts))
    part = parts.pop(number)
    for _ in range(dice.randrange(3)):
        parts.insert(dice.randrange(len(parts) + 1), part)
    stream[edges[0] :] = b"".join(parts)


def cut(stream: bytearray, edges: list[int], dice: random.Random) -> None:
    del stream[dice.randrange(100, len(stream)) :]


def optional(stream: bytearray, edges: list[int], dice: random.Random) -> None:
    at = dice.choice(edges[1:-1])
    stream[at:at] = pack_record(0x80000000 | dice.randrange(0x20), b"later"[: dice.randrange(6)])


def erratum(stream: bytearray, edges: list[int], dice: random.Random) -> None:
    at = edges[dice.randrange(-5, -2)]
    stream[at:at] = samples.vcpu(dice.choice([5, 6, 0xC]), 0, b"")


MUTATIONS: tuple[Callable[[bytearray, list[int], random.Random], None], ...] = (
    flip, retype, resize, refill, refill, rearrange, cut, optional, erratum
)  # fmt: skip


@pytest.mark.parametrize("name", BASES)
def test_what_the_checker_refuses_we_refuse(checker: Checker, name: str) -> None:
    base = BASES[name]
    assert checker.refusal(base) is None
    assert our_refusal(base) is None
    edges = boundaries(base)
    dice = random.Random(name)
    counts = {"both refuse": 0, "both accept": 0, "we alone refuse": 0, **dict.fromkeys(DIFFERENCES, 0)}
    for _ in range(MUTANTS):
        stream = bytearray(base)
        dice.choice(MUTATIONS)(stream, edges, dice)
        theirs, ours = checker.refusal(bytes(stream)), our_refusal(bytes(stream))
        if theirs is None:
            counts["we alone refuse" if ours else "both accept"] += 1
        elif ours is not None:
            counts["both refuse"] += 1
        else:
            known = [reason for reason, report in DIFFERENCES.items() if report.search(theirs)]
            assert known, f"only the checker refuses: {theirs}"
            counts[known[0]] += 1
    assert counts["both refuse"] > MUTANTS / 5, counts
    assert counts["both accept"] > MUTANTS / 20, counts
    assert counts["optional records"] > 0, counts


def test_the_documented_differences_are_still_there(checker: Checker) -> None:
    """Where the checker learns what it lacks, a line of docs/protocol.md is to be taken out."""
    for name in ("with_optional_records", "hvm_plain", "pvh_checkpointed", "pv_checkpointed"):
        assert our_refusal(samples.WHOLE[name]) is None
        assert checker.refusal(samples.WHOLE[name]), name


def test_as_a_command_it_says_the_same(checker: Checker) -> None:
    for stream in (BASES["pv"], BASES["pv"][:-8]):
        done = subprocess.run(
            [sys.executable, str(checker.path), "-q", "-f", "xl"],
            input=stream,
            env={**os.environ, "PYTHONPATH": str(modules_of(checker.path))},
            check=False,
        )
        assert (done.returncode == 0) == (checker.refusal(stream) is None)
