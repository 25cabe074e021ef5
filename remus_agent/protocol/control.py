"""The control socket's language: one JSON object a line.

request   {"version":1,"id":1,"method":"status","params":{"domain":"redis1"}}
answers   {"id":1,"progress":{"phase","done","total","unit","message","elapsed"}}     any number of times,
then
          {"id":1,"result":{...}}  or
          {"id":1,"error":{"code","message","operation"?,"domain"?,"epoch"?,"left"?,"hint"?}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from remus_agent.errors import ProtocolError, RemusError
from remus_agent.protocol.readable import to_json

VERSION: Final = 1
REQUEST_LIMIT: Final = 1024 * 1024
ANSWER_LIMIT: Final = 8 * 1024 * 1024
"""Bytes of one line. Answers may be longer: the ring of the last 4096 epochs must fit one."""
INTERNAL: Final = "internal"


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client wants. id: repeated in the answers."""

    version: int
    id: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    method: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    params: dict[str, Any] = {}


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a request is. done/total: in unit; total 0 when not known. elapsed: seconds since the request
    came."""

    phase: str
    done: int = 0
    total: int = 0
    unit: str = ""
    message: str = ""
    elapsed: float = 0.0


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request failed, with the facts of `RemusError`. code: stable, for programs."""

    code: str
    message: str
    operation: str | None = None
    domain: str | None = None
    epoch: int | None = None
    left: str | None = None
    hint: str | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line to the client; exactly one of progress, result and error is there. id: None when the request's
    was not readable."""

    id: int | None
    progress: Progress | None = None
    result: dict[str, Any] | None = None
    error: Failure | None = None


_REQUEST: Final = msgspec.json.Decoder(Request)
_ANSWER: Final = msgspec.json.Decoder(Answer)


class _Loose(msgspec.Struct):
    id: int | None = None
    version: int | None = None


_LOOSE: Final = msgspec.json.Decoder(_Loose)


class LineSplitter:
    """Received bytes to lines. limit: bytes a line may have; a longer one raises ProtocolError, now and ever
    after."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = bytearray()
        self._dead = False

    @property
    def pending(self) -> int:
        """Bytes of a line that is not complete yet."""
        return len(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends; empty lines are left out."""
        if self._dead:
            raise self._too_long()
        start = len(self._held)
        self._held += data
        if self._held.find(b"\n", start) < 0:
            lines: list[bytes] = []
        else:
            *whole, rest = self._held.split(b"\n")
            self._held = rest
            lines = [bytes(line) for line in whole if line.strip()]
        if len(self._held) > self._limit or any(len(line) > self._limit for line in lines):
            self._dead = True
            self._held.clear()
            raise self._too_long()
        return lines

    def _too_long(self) -> ProtocolError:
        return ProtocolError(f"a line is longer than {self._limit} bytes", operation="control socket")


def encode_request(request: Request) -> bytes:
    """The line of a request. Raises ProtocolError when it is too long."""
    line = msgspec.json.encode(request) + b"\n"
    if len(line) > REQUEST_LIMIT:
        raise ProtocolError(f"the request has {len(line)} bytes, the limit is {REQUEST_LIMIT}")
    return line


def decode_request(line: bytes) -> Request:
    """The request of a line. Raises ProtocolError."""
    try:
        request = _REQUEST.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        version = _loose(line).version
        if version is not None and version != VERSION:
            raise _wrong_version(version) from error
        raise ProtocolError(f"not a request: {error}", operation="control socket") from error
    if request.version != VERSION:
        raise _wrong_version(request.version)
    return request


def request_id(line: bytes) -> int | None:
    """The id of a line that is not a valid request, so that it can be answered; None if there is none."""
    return _loose(line).id


def _loose(line: bytes) -> _Loose:
    try:
        return _LOOSE.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Loose()


def _wrong_version(version: int) -> ProtocolError:
    return ProtocolError(
        f"version {version} of the control language is not known here, only {VERSION}",
        operation="control socket",
        hint="use the client that was installed with this agent",
    )


def encode_answer(answer: Answer) -> bytes:
    """The line of an answer. A result that is too long becomes an error that says so."""
    line = to_json(answer) + b"\n"
    if len(line) > ANSWER_LIMIT:
        error = Failure(
            code="too-long",
            message=f"the answer has {len(line)} bytes, the limit is {ANSWER_LIMIT}",
            hint="ask for less, with a lower limit",
        )
        line = msgspec.json.encode(Answer(id=answer.id, error=error)) + b"\n"
    return line


def encode_result(request: int | None, result: Mapping[str, Any]) -> bytes:
    """The line that ends a request well. Raises ProtocolError when the result cannot be written as JSON."""
    try:
        return encode_answer(Answer(id=request, result=dict(result)))
    except (TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"the result cannot be written as JSON: {error}") from error


def encode_error(request: int | None, error: RemusError) -> bytes:
    """The line that ends a request with an error."""
    return encode_answer(Answer(id=request, error=msgspec.convert(error.as_dict(), Failure)))


def encode_internal_error(request: int | None) -> bytes:
    """The line for an error that nobody expected; what it was is only in the agent's log."""
    return encode_answer(
        Answer(
            id=request,
            error=Failure(
                code=INTERNAL,
                message="the agent failed in a way it does not know",
                hint="see its log: journalctl -u remus-agent",
            ),
        )
    )


def encode_progress(request: int, progress: Progress) -> bytes:
    """The line that says how far a request is."""
    return encode_answer(Answer(id=request, progress=progress))


def decode_answer(line: bytes) -> Answer:
    """The answer of a line. Raises ProtocolError."""
    try:
        answer = _ANSWER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not an answer: {error}", operation="control socket") from error
    if sum(part is not None for part in (answer.progress, answer.result, answer.error)) != 1:
        raise ProtocolError("an answer has one of progress, result and error", operation="control socket")
    return answer


def exit_codes() -> dict[str, int]:
    """Exit code of `remusctl` for each error code of `remus_agent.errors`."""
    codes: dict[str, int] = {}
    pending: list[type[RemusError]] = [RemusError]
    while pending:
        kind = pending.pop()
        codes[kind.code] = kind.exit_code
        pending += kind.__subclasses__()
    return codes
