"""Whatever the bytes are, the tools answer or refuse with an error of the project; nothing else is ever raised."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams import builder, samples
from streams.builder import Epoch

from remus_agent.errors import RemusError, StreamError
from remus_agent.protocol.stream_tools import difference
from remus_agent.protocol.stream_tools.convert import EpochCut, PlainConversion
from remus_agent.protocol.stream_tools.epochs import Complete, EpochSplitter
from remus_agent.protocol.stream_tools.state import StateReader
from remus_agent.protocol.stream_tools.summary import Summary, record_facts
from remus_agent.protocol.stream_tools.walk import StreamCut, StreamWalk, Structure

EPOCHS = [Epoch({1: 1, 2: 0}, zeros=[5], without=[6], emulator=b"model"), Epoch({3: 3}, emulator=b"other")]
STREAMS = [
    builder.checkpointed(EPOCHS, builder.preamble(kind="hvm")),
    builder.plain(EPOCHS, builder.preamble(kind="hvm")),
    samples.pv_plain(),
    builder.checkpointed(
        [Epoch({1: 1}), Epoch()],
        builder.preamble(
            {
                "c_info": {"type": "pvh", "name": "redis1", "uuid": "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001"},
                "b_info": {"max_memkb": 1024},
            }
        ),
    ),
]
GOOD = StateReader()
for _structure in StreamWalk().feed(STREAMS[0]):
    GOOD.take(_structure)


def walk(stream: bytes, take: Callable[[Structure], object]) -> None:
    reader = StreamWalk()
    for structure in reader.feed(stream):
        take(structure)
    reader.close()


def every_tool(stream: bytes) -> None:
    """All tools on one stream. A refusal of one does not keep the next from running."""

    def summarised() -> None:
        summary = Summary(inside=True)

        def take(structure: Structure) -> None:
            summary.take(structure)
            summary.guest.check(structure)
            json.dumps(record_facts(structure))

        walk(stream, take)
        json.dumps(summary.as_dict() | summary.details())

    def compared() -> None:
        reader = StateReader()
        walk(stream, reader.take)
        state = reader.finish()
        difference.memory_difference(GOOD.finish(), state)
        list(difference.changes(GOOD.guest, GOOD.finish(), reader.guest, state))

    def converted() -> None:
        tool = PlainConversion()
        walk(stream, tool.take)
        tool.finish()

    def cut() -> None:
        tool = EpochCut(1)
        walk(stream, tool.take)
        tool.finish()

    def split() -> None:
        splitter = EpochSplitter(1 << 16)
        parts = [part for part in splitter.feed(stream) if isinstance(part, Complete)]
        assert [part.epoch for part in parts] == list(range(1, splitter.complete + 1))
        splitter.close()

    for tool in (summarised, compared, converted, cut, split):
        try:
            tool()
        except RemusError as error:
            facts = error.as_dict()
            assert facts["message"]
            assert not isinstance(error, StreamError) or 0 <= error.offset <= len(stream)


@given(st.sampled_from(STREAMS), st.data())
def test_changed_bytes(stream: bytes, data: st.DataObject) -> None:
    changed = bytearray(stream)
    # Most of a stream is pages; what decides stands in front of them and in small records.
    places = st.one_of(st.integers(0, 400), st.integers(0, len(stream) - 1))
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(places)] = data.draw(st.sampled_from([0, 1, 2, 0x10, 0x7F, 0x80, 0xFF]))
    every_tool(bytes(changed))


@given(st.sampled_from(STREAMS), st.data())
def test_lost_and_repeated_bytes(stream: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(stream)))
    end = data.draw(st.integers(0, len(stream)))
    every_tool(stream[:start] + stream[end:])


@given(st.binary(max_size=300))
def test_garbage(stream: bytes) -> None:
    every_tool(stream)


@pytest.mark.parametrize("number", range(len(STREAMS)))
def test_every_length(number: int) -> None:
    """Each cut is told apart: between epochs or not."""
    stream = STREAMS[number]
    last = {0: len(EPOCHS[1].raw), 3: len(Epoch().raw)}.get(number)
    ends = {len(stream), len(stream) - last} if last is not None else set()
    for size in [*range(700), *range(700, len(stream), 61), *ends]:
        with pytest.raises(StreamCut) as caught:
            walk(stream[:size], lambda _: None)
        assert caught.value.exit_code == (15 if size in ends else 14)
