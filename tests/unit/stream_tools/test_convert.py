"""A plain stream out of one with checkpoints; one epoch out of it; both against the slow way."""

from __future__ import annotations

import pytest
from streams import builder, meaning, samples
from streams.builder import Epoch

from remus_agent.errors import RefusedError
from remus_agent.protocol.stream import records, writer
from remus_agent.protocol.stream_tools.convert import EpochCut, PlainConversion
from remus_agent.protocol.stream_tools.walk import StreamWalk

HVM = builder.preamble(kind="hvm")
EPOCHS = [
    Epoch({1: 1, 2: 2, 5: 5}, nsec=1, rip=1, emulator=b"first"),
    Epoch({2: 7}, zeros=[1, 9], without=[5], nsec=2, rip=2, emulator=b"second"),
    Epoch({1: 3, 9: 4}, nsec=3, rip=3),
]


def taken(stream: bytes, tool: PlainConversion | EpochCut) -> bytes:
    walk = StreamWalk()
    out = b""
    for structure in walk.feed(stream):
        out += b"".join(bytes(buffer) for buffer in tool.take(structure))
        if tool.done:
            break
    return out + b"".join(bytes(buffer) for buffer in tool.finish())


@pytest.mark.parametrize("epoch", [1, 2, 3, None])
def test_a_converted_stream_means_its_epoch(epoch: int | None) -> None:
    plain = taken(builder.checkpointed(EPOCHS, HVM), PlainConversion(epoch))
    memory, tail = meaning.of_plain(plain)
    assert (memory, tail) == meaning.of_epochs(EPOCHS[:epoch])


def test_order_and_bytes_of_a_converted_stream() -> None:
    epochs = [Epoch({1: 1}, rip=1), Epoch({2: 2}, rip=2)]
    assert taken(builder.checkpointed(epochs), PlainConversion()) == builder.plain(epochs)


def test_the_end_of_a_stream_counts_as_an_epoch() -> None:
    stream = builder.checkpointed(EPOCHS[:2], HVM) + builder.end(EPOCHS[2])
    assert meaning.of_plain(taken(stream, PlainConversion())) == meaning.of_epochs(EPOCHS)
    assert meaning.of_plain(taken(stream, PlainConversion(2))) == meaning.of_epochs(EPOCHS[:2])
    plain = builder.plain([Epoch({1: 1})])
    assert taken(plain, PlainConversion()) == plain


def test_optional_records_are_left_out() -> None:
    extra = records.pack_record(0x80000001, b"private")
    one = Epoch({1: 1})
    raw = extra + one.memory + extra + one.tail + writer.checkpoint() + extra + writer.checkpoint_end()
    assert taken(builder.preamble() + raw, PlainConversion()) == builder.plain([one])


def test_a_pv_stream_stays_as_it_is() -> None:
    assert taken(samples.pv_plain(), PlainConversion()) == samples.pv_plain()


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_cut_epoch_stands_as_it_was(epoch: int) -> None:
    assert taken(builder.checkpointed(EPOCHS, HVM), EpochCut(epoch)) == EPOCHS[epoch - 1].raw


@pytest.mark.parametrize("tool", [PlainConversion(4), EpochCut(4)])
def test_epochs_that_are_not_there(tool: PlainConversion | EpochCut) -> None:
    with pytest.raises(RefusedError, match="holds 3 complete epochs, epoch 4 is not among them"):
        taken(builder.checkpointed(EPOCHS, HVM), tool)


def test_a_stream_without_a_complete_epoch() -> None:
    with pytest.raises(RefusedError, match="no complete epoch"):
        taken(builder.preamble(), PlainConversion())
