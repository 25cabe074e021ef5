"""The splitter: the same bytes come out whatever the pieces, and what cannot be sent is refused with its place."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from streams import builder, samples
from streams.builder import CONFIG, Epoch

from remus_agent.errors import RefusedError, StreamError
from remus_agent.protocol.stream import records, writer
from remus_agent.protocol.stream.constants import GuestType
from remus_agent.protocol.stream.epoch import parse_epoch
from remus_agent.protocol.stream.preamble import parse_preamble
from remus_agent.protocol.stream.reader import iter_records
from remus_agent.protocol.stream_tools import epochs
from remus_agent.protocol.stream_tools.epochs import Beginning, Complete, EpochSplitter, Piece
from remus_agent.protocol.stream_tools.walk import CutBetweenEpochs, CutInsideEpoch

UUID = "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001"
LIMIT = 8 << 20
INFO: dict[str, Any] = {"type": "pvh", "name": "redis1", "uuid": UUID}
FRONT = builder.preamble({"c_info": INFO, "b_info": {"max_memkb": 131072, "target_memkb": 65536}})
EPOCHS = [Epoch({1: 1, 2: 2}, zeros=[3], without=[4]), Epoch({2: 3}), Epoch()]
STREAM = builder.checkpointed(EPOCHS, FRONT)


def split(stream: bytes, step: int = 1 << 20, limit: int = LIMIT) -> tuple[list[Any], EpochSplitter]:
    """All parts, with buffers that own their bytes."""
    splitter, found = EpochSplitter(limit), []
    for start in range(0, len(stream), step):
        for part in splitter.feed(stream[start : start + step]):
            found.append(
                Piece(part.epoch, (b"".join(part.buffers),), part.size) if isinstance(part, Piece) else part  # type: ignore[arg-type]
            )
    return found, splitter


def records_of(parts: list[Any], epoch: int) -> bytes:
    return b"".join(b"".join(part.buffers) for part in parts if isinstance(part, Piece) and part.epoch == epoch)


@pytest.mark.parametrize("step", [1, 7, 4096, 1 << 20])
def test_a_checkpointed_stream(step: int) -> None:
    parts, splitter = split(STREAM, step)
    assert parts[0] == Beginning(FRONT, "redis1", UUID, GuestType.PVH, 65536, (4, 17))
    assert parse_preamble(parts[0].raw).name == "redis1"
    for number, epoch in enumerate(EPOCHS, 1):
        assert records_of(parts, number) == epoch.raw
    assert [part for part in parts if isinstance(part, Complete)] == [Complete(1, 2), Complete(2, 1), Complete(3, 0)]
    with pytest.raises(CutBetweenEpochs):
        splitter.close()


def test_the_backup_accepts_each_epoch_as_stock_writes_it() -> None:
    """Ordinary pages, broken ones, and ones without content in one record."""
    mixed = samples.page_data([(0x0, 1), (0xE, 2), (0xF, 3), (0xD, 4), (0x0, 5)])
    raw = mixed + EPOCHS[0].tail + writer.checkpoint() + writer.checkpoint_end()
    parts, _ = split(FRONT + raw)
    staged = parse_epoch([bytes(part.buffers[0]) for part in parts if isinstance(part, Piece)], 1 << 36)
    assert staged.page_records == [mixed]
    assert (staged.pages, parts[-1].pages) == (2, 2)


def test_a_device_model_goes_through() -> None:
    front = builder.preamble({"c_info": INFO | {"type": "hvm"}, "b_info": {"max_memkb": 1024}})
    epoch = Epoch({1: 1}, emulator=b"QEVM")
    parts, _ = split(builder.checkpointed([epoch], front))
    assert parts[0].guest_type is GuestType.HVM
    assert records_of(parts, 1) == epoch.raw


def test_the_state_at_the_end_of_a_stream_is_an_epoch() -> None:
    last = Epoch({9: 9})
    parts, splitter = split(STREAM + builder.end(last))
    assert parts[-1] == Complete(4, 1)
    assert records_of(parts, 4) == last.raw
    splitter.close()


def test_a_plain_stream_is_refused() -> None:
    with pytest.raises(RefusedError, match="plain stream") as caught:
        split(builder.plain(EPOCHS[:1], FRONT))
    assert caught.value.hint is not None
    assert "xl remus" in caught.value.hint


def test_long_records_of_pages_are_cut_and_hold_the_same() -> None:
    kinds = [(0xF if pfn % 3 else 0x0, pfn) for pfn in range(2500)]
    whole = samples.page_data(kinds)
    (record,) = iter_records(whole)
    cut = list(epochs.shorter(record))
    assert len(cut) == 3
    bodies = [next(iter_records(b"".join(buffers))) for buffers in cut]
    pages = [records.parse_page_data(one.body, 0) for one in bodies]
    assert [pfn for page in pages for pfn in page.pfns.tolist()] == list(range(2500))
    assert b"".join(bytes(page.content) for page in pages) == bytes(records.parse_page_data(record.body, 0).content)
    parts, _ = split(FRONT + whole + EPOCHS[2].raw, limit=2 << 20)
    assert [part.size for part in parts if isinstance(part, Piece)][:3] == [len(b"".join(buffers)) for buffers in cut]
    assert parts[-1] == Complete(1, records.parse_page_data(record.body, 0).pages)


def test_other_long_records_are_refused() -> None:
    with pytest.raises(StreamError, match="HVM_CONTEXT is too long to be sent; expected at most 256 bytes") as caught:
        split(FRONT + Epoch().raw, limit=256)
    assert caught.value.record == "HVM_CONTEXT"


@pytest.mark.parametrize(
    ("stream", "error", "message"),
    [
        (samples.start(version=2), StreamError, "version 2 cannot be sent"),
        (builder.preamble({"c_info": INFO, "b_info": {}}), StreamError, "how much memory"),
        (builder.preamble({"c_info": INFO, "b_info": {"max_memkb": 2**64 - 1}}), StreamError, "how much memory"),
        (builder.preamble(CONFIG), StreamError, "UUID.*expected c_info.uuid, found none"),
        (builder.preamble({"c_info": INFO | {"uuid": "1"}, "b_info": {"max_memkb": 1}}), StreamError, "found 1"),
        (builder.preamble({"c_info": {"name": "redis1", "uuid": UUID}}), StreamError, "name and type"),
        (builder.preamble({"c_info": INFO | {"type": "pv"}}), StreamError, "disagree about the type of guest"),
        (STREAM + b"\xff" * 16, StreamError, "libxc record"),
        (FRONT + Epoch(context=b"x" * 64).raw, StreamError, "HVM_CONTEXT"),
        (b"\x7fELF" + bytes(100), StreamError, "not a domain saved by xl"),
    ],
)
def test_what_cannot_be_sent(stream: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        split(stream)


def test_the_end_inside_an_epoch_is_told() -> None:
    _, splitter = split(STREAM[:-3])
    assert splitter.complete == 2
    with pytest.raises(CutInsideEpoch):
        splitter.close()


def test_a_wrong_count_of_pfns_is_damage() -> None:
    """A record that claims more pfns than it has is damage, also where it would be cut."""
    body = bytearray(samples.page_data([(0, 1), (0, 2)], fill=0))
    struct.pack_into("<I", body, 8, 3)
    with pytest.raises(StreamError, match="wrong length of PAGE_DATA"):
        split(FRONT + bytes(body), limit=64)
