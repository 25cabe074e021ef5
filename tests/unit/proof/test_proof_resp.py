"""Redis' wire format."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proof.resp import Decoder, RespError, ServerError, command

WIRE = b":12\r\n+OK\r\n-ERR no\r\n$3\r\na\r\n\r\n$-1\r\n*2\r\n:1\r\n*1\r\n$0\r\n\r\n*-1\r\n"
REPLIES = [12, "OK", ServerError("ERR no"), b"a\r\n", None, [1, [b""]], None]


def test_a_command_is_an_array_of_bulk_strings():
    assert command("RPUSH", "k", 12) == b"*3\r\n$5\r\nRPUSH\r\n$1\r\nk\r\n$2\r\n12\r\n"


@given(st.lists(st.integers(0, len(WIRE)), max_size=8))
def test_any_chunking_gives_the_same_replies(cuts):
    decoder, found, at = Decoder(), [], 0
    for cut in [*sorted(cuts), len(WIRE)]:
        found += decoder.feed(WIRE[at:cut])
        at = cut
    assert found == REPLIES
    assert decoder.pending == 0


@pytest.mark.parametrize("wire", [b"?1\r\n", b":x\r\n", b"$1\r\nabcd\r\n"])
def test_other_bytes_are_refused(wire):
    with pytest.raises(RespError):
        Decoder().feed(wire)
