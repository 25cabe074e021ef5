"""Whatever a system call takes of a vector, every byte goes out once and in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remus_agent.protocol.unsent import VECTOR, Unsent


@given(st.lists(st.binary(max_size=9)), st.data())
def test_every_byte_goes_out_once_and_in_order(buffers: list[bytes], data: st.DataObject) -> None:
    unsent = Unsent(buffers)
    out = b""
    while unsent:
        vector = b"".join(unsent.vector())
        count = data.draw(st.integers(0, len(vector))) or 1
        out += vector[:count]
        unsent.advance(count)
    assert out == b"".join(buffers)
    assert unsent.vector() == []


def test_a_vector_is_bounded_and_holds_nothing_empty() -> None:
    unsent = Unsent([b"", *[b"x"] * (VECTOR + 1), memoryview(bytearray(6)).cast("H")])
    assert [len(part) for part in unsent.vector()] == [1] * VECTOR
    unsent.advance(VECTOR)
    assert [len(part) for part in unsent.vector()] == [1, 6]
    unsent.advance(3)
    assert [len(part) for part in unsent.vector()] == [4]
