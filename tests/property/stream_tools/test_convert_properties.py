"""What holds of every conversion: memory and tail are those of its epoch, and its stream keeps every rule."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st
from streams import builder, meaning
from streams.builder import Epoch

from remus_agent.protocol.stream_tools.convert import EpochCut, PlainConversion
from remus_agent.protocol.stream_tools.rules import Guest
from remus_agent.protocol.stream_tools.state import StateReader
from remus_agent.protocol.stream_tools.walk import StreamWalk

PFNS = st.integers(0, 12)
EPOCHS = st.lists(
    st.builds(
        Epoch,
        st.dictionaries(PFNS, st.integers(0, 255), max_size=4),
        st.lists(PFNS, max_size=3),
        st.lists(PFNS, max_size=2),
        st.integers(0, 1 << 40),
        st.integers(0, 1 << 40),
        st.lists(st.tuples(st.integers(0, 40), st.integers(0, 1 << 40)), max_size=3),
        st.binary(max_size=20),
    ),
    min_size=1,
    max_size=4,
)


def converted(stream: bytes, tool: PlainConversion | EpochCut, piece: int) -> bytes:
    walk, source, out = StreamWalk(), io.BytesIO(stream), io.BytesIO()
    mark = 0
    for structure in chain.from_iterable(map(walk.feed, iter(lambda: source.read(piece), b""))):
        complete = tool.complete
        out.writelines(tool.take(structure))
        if tool.complete != complete:
            mark = out.tell()
        if tool.done:
            break
    if isinstance(tool, PlainConversion):
        out.truncate(mark)
        out.seek(mark)
    out.writelines(tool.finish())
    return out.getvalue()


@given(EPOCHS, st.data())
def test_a_conversion_means_what_its_epochs_mean(epochs: Sequence[Epoch], data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, len(epochs)))
    stream = builder.checkpointed(epochs, builder.preamble(kind="hvm"))
    last = data.draw(st.booleans())
    if last:  # whatever is not complete is left out
        stream = stream[: len(stream) - sum(len(one.raw) for one in epochs[wanted:])]
        stream += epochs[0].raw[: data.draw(st.integers(0, len(epochs[0].raw) - 1))]
    plain = converted(
        stream, PlainConversion(None if last else wanted), data.draw(st.sampled_from([100, 5000, 1 << 20]))
    )
    assert meaning.of_plain(plain) == meaning.of_epochs(epochs[:wanted])
    walk, guest = StreamWalk(), Guest()
    for structure in walk.feed(plain):
        guest.take(structure)
        guest.check(structure)
    walk.close()


@given(EPOCHS)
def test_a_state_is_that_of_the_converted_stream(epochs: Sequence[Epoch]) -> None:
    stream = builder.checkpointed(epochs, builder.preamble(kind="hvm"))
    states = []
    for one in (stream, converted(stream, PlainConversion(), 1 << 20)):
        reader = StateReader()
        for structure in StreamWalk().feed(one):
            reader.take(structure)
        states.append(reader.finish())
    assert [array.tolist() for array in states[0].memory.entries()] == [
        array.tolist() for array in states[1].memory.entries()
    ]
    assert states[0].tail == states[1].tail


@given(EPOCHS, st.data())
def test_cut_epochs_make_the_stream_again(epochs: Sequence[Epoch], data: st.DataObject) -> None:
    start = builder.preamble(kind="hvm")
    stream = builder.checkpointed(epochs, start)
    cuts = [converted(stream, EpochCut(number), 1000) for number in range(1, len(epochs) + 1)]
    assert start + b"".join(cuts) == stream
