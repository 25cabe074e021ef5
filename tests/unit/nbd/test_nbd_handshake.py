"""The handshake, byte by byte ("Newstyle negotiation", "Fixed newstyle negotiation", "Option types")."""

from __future__ import annotations

import struct

import nbd_client as client
import pytest
from nbd_client import ACK, EXPORT, OptionAnswer, option, option_answers, sent

from remus_agent.errors import NbdError, ProtocolError
from remus_agent.protocol.nbd.constants import MAX_OPTION_BYTES
from remus_agent.protocol.nbd.messages import Disconnect, Export, Send
from remus_agent.protocol.nbd.server import NbdServer

FLAGS = 0b1101101
"""HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES."""


def asked(*options: bytes, export: Export = EXPORT) -> tuple[NbdServer, list[OptionAnswer]]:
    server = NbdServer(export)
    events = server.feed(client.flags() + b"".join(options))
    return server, option_answers(sent(events))


def test_the_greeting() -> None:
    assert NbdServer(EXPORT).greeting == b"NBDMAGICIHAVEOPT\x00\x03"


@pytest.mark.parametrize(("client_flags", "zeroes"), [(0, 124), (1, 124), (2, 0), (3, 0)])
def test_export_name(client_flags: int, zeroes: int) -> None:
    server = NbdServer(EXPORT)
    assert server.feed(client.flags(client_flags)) == []
    events = server.feed(option(client.EXPORT_NAME, b"xvda"))
    assert events == [Send(struct.pack(">QH", 64 << 20, FLAGS) + bytes(zeroes))]
    assert server.negotiated


@pytest.mark.parametrize("name", [b"xvdb", b"", b"xvda\0", b"\xff" * 300])
def test_export_name_of_another_disk_ends_the_session(name: bytes) -> None:
    server = NbdServer(EXPORT)
    with pytest.raises(NbdError, match="unknown export; expected 'xvda', found"):
        server.feed(client.flags() + option(client.EXPORT_NAME, name))
    assert not server.negotiated


@pytest.mark.parametrize("value", [4, 0x80000000, 0xFFFFFFFF])
def test_unknown_client_flags_end_the_session(value: int) -> None:
    with pytest.raises(NbdError, match="unknown flags") as caught:
        NbdServer(EXPORT).feed(client.flags(value))
    assert (caught.value.expected, caught.value.found) == ("only 0x3", f"{value:#x}")
    assert isinstance(caught.value, ProtocolError)
    assert caught.value.as_dict()["expected"] == "only 0x3"
    assert caught.value.code == "nbd"


@pytest.mark.parametrize("number", [client.INFO, client.GO])
@pytest.mark.parametrize("infos", [(), (3,), (0, 1, 2, 3), (3, 3, 999)])
@pytest.mark.parametrize("block", [512, 4096, 8192])
def test_info_and_go(number: int, infos: tuple[int, ...], block: int) -> None:
    export = Export("xvda", 64 << 20, block)
    server, answers = asked(option(number, client.about("xvda", infos)), export=export)
    assert answers == [
        OptionAnswer(number, client.ABOUT, struct.pack(">HQH", 0, 64 << 20, FLAGS)),
        OptionAnswer(number, client.ABOUT, struct.pack(">HIII", 3, block, max(4096, block), 32 << 20)),
        OptionAnswer(number, ACK, b""),
    ]
    assert server.negotiated == (number == client.GO)


@pytest.mark.parametrize("number", [client.INFO, client.GO])
@pytest.mark.parametrize("name", ["", "xvdb", "xvdaa", "XVDA"])
def test_info_and_go_of_another_disk(number: int, name: str) -> None:
    server, (answer,) = asked(option(number, client.about(name)))
    assert (answer.option, answer.kind) == (number, client.ERR_UNKNOWN)
    assert b"'xvda'" in answer.data
    assert not server.negotiated
    server.feed(option(client.GO, client.about()))
    assert server.negotiated


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 5,
        struct.pack(">I4sH", 5, b"xvda", 0),
        struct.pack(">I4sH", 0xFFFFFFFF, b"xvda", 0),
        struct.pack(">I4sH", 4, b"xvda", 1),
        struct.pack(">I4sHH", 4, b"xvda", 0, 3),
        struct.pack(">I4sHB", 4, b"xvda", 0, 3),
    ],
)
def test_lengths_that_contradict_each_other(data: bytes) -> None:
    server, answers = asked(option(client.GO, data), option(client.INFO, data))
    assert [(a.option, a.kind) for a in answers] == [(7, client.ERR_INVALID), (6, client.ERR_INVALID)]
    assert not server.negotiated


def test_an_export_without_a_name_is_the_default_one() -> None:
    server, _ = asked(option(client.GO, client.about("")), export=Export("", 4096, 512))
    assert server.negotiated


def test_list() -> None:
    _, answers = asked(option(client.LIST))
    assert answers == [OptionAnswer(3, client.SERVER, b"\0\0\0\4xvda"), OptionAnswer(3, ACK, b"")]


@pytest.mark.parametrize("number", [client.LIST, client.STARTTLS, client.STRUCTURED_REPLY])
def test_options_without_data_refuse_data(number: int) -> None:
    _, (answer,) = asked(option(number, b"x"))
    assert (answer.option, answer.kind) == (number, client.ERR_INVALID)


@pytest.mark.parametrize("number", [0, 4, 5, 8, 11, 99, 0xFFFFFFFF])
def test_what_is_not_supported_is_refused_and_the_client_may_go_on(number: int) -> None:
    server, answers = asked(option(number), option(client.LIST))
    assert (answers[0].option, answers[0].kind) == (number, client.ERR_UNSUP)
    assert answers[1].kind == client.SERVER
    assert not server.negotiated


@pytest.mark.parametrize("number", [9, 10, 77])
def test_the_data_of_unknown_options_is_skipped(number: int) -> None:
    _, answers = asked(option(number, b"\x25" * MAX_OPTION_BYTES), option(client.LIST))
    assert [a.kind for a in answers] == [client.ERR_UNSUP, client.SERVER, ACK]


@pytest.mark.parametrize("data", [b"", b"ignored"])
def test_abort_is_acknowledged_and_ends_the_session(data: bytes) -> None:
    server = NbdServer(EXPORT)
    answer, end = server.feed(client.flags() + option(client.ABORT, data))
    assert option_answers(sent([answer])) == [OptionAnswer(2, ACK, b"")]
    assert end == Disconnect()
    assert not server.negotiated
    assert server.feed(b"more") == []
    assert server.pending == 0


@pytest.mark.parametrize("number", [client.GO, client.EXPORT_NAME, 77])
@pytest.mark.parametrize("length", [MAX_OPTION_BYTES + 1, 0xFFFFFFFF])
def test_the_length_of_an_option_is_limited_before_its_data_comes(number: int, length: int) -> None:
    server = NbdServer(EXPORT)
    with pytest.raises(NbdError, match=f"at most {MAX_OPTION_BYTES} bytes, found {length}"):
        server.feed(client.flags() + option(number, length=length))
    with pytest.raises(NbdError, match="at most"):
        server.get_buffer()


def test_an_option_with_another_magic() -> None:
    with pytest.raises(NbdError, match="magic; expected 0x49484156454f5054, found 0x0"):
        NbdServer(EXPORT).feed(client.flags() + bytes(16))


def test_answers_before_bad_bytes_are_not_lost() -> None:
    server = NbdServer(EXPORT)
    events = server.feed(client.flags() + option(client.LIST) + b"GET / HTTP/1.1\r\n")
    assert [a.kind for a in option_answers(sent(events))] == [client.SERVER, ACK]
    assert server.failed is not None
    with pytest.raises(NbdError, match="magic"):
        server.buffer_updated(1)


@pytest.mark.parametrize(
    ("name", "size", "block", "what"),
    [
        ("xvda", 4096, 0, "block size"),
        ("xvda", 4096, 1000, "block size"),
        ("xvda", 1 << 20, 1 << 17, "block size"),
        ("xvda", 0, 512, "size"),
        ("xvda", 4097, 512, "size"),
        ("xvda", -512, 512, "size"),
        ("xvda", 1 << 63, 512, "size"),
        ("x" * 4097, 4096, 512, "name"),
        ("xv\0da", 4096, 512, "name"),
        ("\udc80", 4096, 512, "name"),
    ],
)
def test_exports_that_the_protocol_cannot_describe(name: str, size: int, block: int, what: str) -> None:
    with pytest.raises(NbdError, match=f"^make export: {what} of an export; expected"):
        Export(name, size, block)
