"""PostgreSQL's wire format."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proof.pgwire import Decoder, PgError, Refused, Result, query, startup


def message(kind, body=b""):
    return kind + struct.pack("!I", len(body) + 4) + body


def row(*values):
    parts = [struct.pack("!i", -1) if v is None else struct.pack("!i", len(v)) + v for v in values]
    return message(b"D", struct.pack("!H", len(values)) + b"".join(parts))


READY = message(b"Z", b"I")
LOGIN = message(b"R", bytes(4)) + message(b"S", b"server_version\x0017\0") + message(b"K", bytes(8)) + READY
INSERTED = message(b"T", b"\0\0") + row(b"7") + message(b"C", b"INSERT 0 1\0") + READY
ERROR = message(b"E", b"SERROR\0C42P01\0Mno such table\0\0") + message(b"Z", b"E")


def test_what_is_sent():
    assert query("SELECT 1") == b"Q\0\0\0\x0dSELECT 1\0"
    first = startup("postgres", "proof")
    assert struct.unpack("!II", first[:8]) == (len(first), 196608)
    assert first[8:].startswith(b"user\0postgres\0database\0proof\0")
    assert first.endswith(b"\0\0")


@given(st.lists(st.integers(1, len(LOGIN + INSERTED + ERROR) - 1), max_size=8))
def test_results_come_in_any_chunking(cuts):
    wire, decoder, found, at = LOGIN + INSERTED + ERROR, Decoder(), [], 0
    for cut in [*sorted(cuts), len(wire)]:
        found += decoder.feed(wire[at:cut])
        at = cut
    login, inserted, error = found
    assert login == Result(status="I")
    assert inserted == Result(rows=[("7",)], tags=["INSERT 0 1"], status="I")
    assert (str(error.error), error.status, error.tags) == ("ERROR 42P01: no such table", "E", [])


def test_a_result_counts_when_the_transaction_has_ended_and_not_before():
    decoder = Decoder()
    assert decoder.feed(INSERTED[: -len(READY)]) == []
    assert len(decoder.feed(READY)) == 1


def test_nothing_is_none():
    (result,) = Decoder().feed(row(None, b"") + READY)
    assert result.rows == [(None, "")]


def test_an_error_that_ends_the_connection_is_raised():
    with pytest.raises(Refused, match=r"FATAL 57P01: terminating"):
        Decoder().feed(message(b"E", b"SFATAL\0C57P01\0Mterminating\0\0"))


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        message(b"R", struct.pack("!I", 5)),
        message(b"?"),
        message(b"D", b"\0\x01\0\0"),
        message(b"D", b"\0\0x"),
        message(b"D", b"\0\x01\0\0\0\x01\xff"),
        b"Z\0\0\0\0",
    ],
)
def test_other_bytes_are_refused(wire):
    with pytest.raises(PgError):
        Decoder().feed(wire)
