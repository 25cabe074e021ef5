from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remus_agent.errors import (
    AlreadyProtected,
    AuthorityError,
    ProtocolError,
    RefusedError,
    RemusError,
    StreamError,
)
from remus_agent.protocol import control
from remus_agent.protocol.control import LineSplitter, Progress, Request


def test_a_request_there_and_back() -> None:
    request = Request(version=1, id=7, method="status", params={"domain": "redis1"})
    line = control.encode_request(request)
    assert json.loads(line) == {"version": 1, "id": 7, "method": "status", "params": {"domain": "redis1"}}
    assert line.endswith(b"\n")
    assert control.decode_request(line[:-1]) == request


def test_params_may_be_left_out() -> None:
    assert control.decode_request(b'{"version":1,"id":1,"method":"list"}').params == {}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"version":1,"method":"list"}',
        b'{"version":1,"id":-1,"method":"list"}',
        b'{"version":1,"id":"1","method":"list"}',
        b'{"version":1,"id":1,"method":""}',
        b'{"version":1,"id":1,"method":"list","params":[]}',
        b'{"version":1,"id":1,"method":"list","more":1}',
        b'{"version":1,"id":1,"method":"list","params":{"a":' + b"[" * 100_000 + b"}}",
    ],
    ids=range(11),
)
def test_what_is_not_a_request(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        control.decode_request(line)


@pytest.mark.parametrize("line", [b'{"version":2,"id":5,"method":"list"}', b'{"version":2,"id":5,"verb":"new words"}'])
def test_another_version_is_named(line: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"version 2 .* only 1"):
        control.decode_request(line)
    assert control.request_id(line) == 5


def test_answers_there_and_back() -> None:
    result = control.decode_answer(control.encode_result(3, {"domains": []}))
    assert (result.id, result.result) == (3, {"domains": []})
    assert control.decode_answer(control.encode_result(3, {})).result == {}
    step = Progress(phase="seeding", done=1, total=2, unit="pages", message="m", elapsed=0.5)
    line = control.encode_progress(3, step)
    assert json.loads(line)["progress"] == {
        "phase": "seeding",
        "done": 1,
        "total": 2,
        "unit": "pages",
        "message": "m",
        "elapsed": 0.5,
    }
    assert control.decode_answer(line).progress == step


def test_an_error_carries_its_facts_and_nothing_else() -> None:
    error = AuthorityError("no", operation="failover", domain="redis1", epoch=4, left="l", hint="h")
    assert json.loads(control.encode_error(1, error)) == {
        "id": 1,
        "error": {
            "code": "authority",
            "message": "no",
            "operation": "failover",
            "domain": "redis1",
            "epoch": 4,
            "left": "l",
            "hint": "h",
        },
    }
    assert json.loads(control.encode_error(None, RefusedError("no"))) == {
        "id": None,
        "error": {"code": "refused", "message": "no"},
    }


def test_names_from_xenstore_that_are_no_text_can_be_sent() -> None:
    error = AuthorityError("vif\udcff is gone", operation="protect", domain="web\udcff", hint="see vif\udcff")
    failure = control.decode_answer(control.encode_error(1, error)).error
    assert failure is not None
    assert (failure.message, failure.domain, failure.epoch) == ("vif\\udcff is gone", "web\\udcff", None)
    result = {"domains": [{"reason": "vif\udcff", "vif\udcff": ("vif\udcff", 1.5, None)}]}
    assert control.decode_answer(control.encode_result(1, result)).result == {
        "domains": [{"reason": "vif\\udcff", "vif\\udcff": ["vif\\udcff", 1.5, None]}]
    }
    step = Progress(phase="seeding", message="vif\udcff")
    assert json.loads(control.encode_progress(3, step))["progress"]["message"] == "vif\\udcff"


@pytest.mark.parametrize("line", [b"{}", b'{"id":1}', b'{"id":1,"result":{},"error":{"code":"a","message":"b"}}', b"x"])
def test_what_is_not_an_answer(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        control.decode_answer(line)


def test_a_result_that_is_too_long_becomes_an_error() -> None:
    answer = control.decode_answer(control.encode_result(2, {"text": "x" * control.ANSWER_LIMIT}))
    assert answer.error is not None
    assert (answer.id, answer.error.code) == (2, "too-long")


def test_the_ring_of_epochs_fits_an_answer() -> None:
    names = ["epoch", "pages", "bytes", "freeze_ns", "barrier_ns", "clean_ns", "copy_ns"]
    names += [
        "context_ns",
        "resume_ns",
        "down_ns",
        "send_ns",
        "ack_ns",
        "period_ns",
        "disk_bytes",
        "disk_extents",
        "disk_ack_ns",
    ]
    records = [dict.fromkeys(names, 10**15) for _ in range(4096)]
    assert control.decode_answer(control.encode_result(1, {"epochs": records})).error is None


def test_a_result_that_is_no_json() -> None:
    with pytest.raises(ProtocolError):
        control.encode_result(1, {"value": object()})


def test_a_request_that_is_too_long() -> None:
    with pytest.raises(ProtocolError):
        control.encode_request(Request(version=1, id=1, method="m", params={"t": "x" * control.REQUEST_LIMIT}))


@given(st.lists(st.binary(min_size=1, max_size=50)), st.lists(st.integers(1, 60), min_size=1))
def test_lines_in_any_chunking(lines: list[bytes], sizes: list[int]) -> None:
    lines = [clean for line in lines if (clean := line.replace(b"\n", b"")).strip()]
    data = b"".join(line + b"\n" for line in lines) + b"rest"
    splitter = LineSplitter(1000)
    found: list[bytes] = []
    turn = 0
    while data:
        size = sizes[turn % len(sizes)]
        found += splitter.feed(data[:size])
        data, turn = data[size:], turn + 1
    assert found == lines
    assert splitter.pending == 4


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_that_is_too_long_ends_the_conversation(end: bytes) -> None:
    splitter = LineSplitter(10)
    assert splitter.feed(b"0123456789\n") == [b"0123456789"]
    with pytest.raises(ProtocolError, match="longer than 10"):
        splitter.feed(b"0123456789a" + end)
    with pytest.raises(ProtocolError):
        splitter.feed(b"\n")


def test_every_error_has_one_exit_code() -> None:
    codes: dict[str, Any] = control.exit_codes()
    for kind in (RemusError, RefusedError, AlreadyProtected, StreamError, AuthorityError):
        assert codes[kind.code] == kind.exit_code
