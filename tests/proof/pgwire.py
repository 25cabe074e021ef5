"""PostgreSQL's wire format (protocol 3), as much of it as is needed: log in where that is trusted, simple queries and their
results; no sockets here."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

LONGEST = 1 << 26
"""Bytes that no message of the proof can have; a length beyond that is not PostgreSQL speaking."""


class PgError(Exception):
    """Bytes that are not protocol 3, or a conversation that the proof does not have."""


class Refused(Exception):
    """PostgreSQL answered with an error (severity, SQLSTATE and message, in its words)."""


@dataclass(slots=True)
class Result:
    """What one query gave. rows: fields as text, None for NULL; tags: one for each statement; status: `I` when no transaction
    is open after it."""

    rows: list[tuple[str | None, ...]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    error: Refused | None = None
    status: str = ""


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def startup(user: str, database: str) -> bytes:
    """The first message on a connection."""
    words = ("user", user, "database", database, "application_name", "proof", "client_encoding", "UTF8")
    body = struct.pack("!I", 3 << 16) + b"".join(word.encode() + b"\0" for word in words) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def query(sql: str) -> bytes:
    """A simple query. Several statements in one, not in a transaction of their own, are one transaction."""
    return _message(b"Q", sql.encode() + b"\0")


def _refusal(body: bytes) -> Refused:
    fields = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
    return Refused(f"{fields.get(b'S', 'ERROR')} {fields.get(b'C', '?????')}: {fields.get(b'M', '')}")


def _row(body: bytes) -> tuple[str | None, ...]:
    (count,) = struct.unpack_from("!H", body)
    at = 2
    values: list[str | None] = []
    for _ in range(count):
        (size,) = struct.unpack_from("!i", body, at)
        at += 4
        values.append(None if size < 0 else body[at : at + size].decode())
        at += max(size, 0)
    if at != len(body):
        raise PgError("a row does not end where it says")
    return tuple(values)


class Decoder:
    """Results from bytes in any chunking. The login is the first result; it has neither rows nor tags."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._result = Result()

    def feed(self, data: bytes) -> list[Result]:
        """The results that DATA completes. An error that ends the connection is raised as Refused."""
        self._buffer += data
        done: list[Result] = []
        while len(self._buffer) >= 5:
            kind = bytes(self._buffer[:1])
            (length,) = struct.unpack_from("!I", self._buffer, 1)
            if not 4 <= length <= LONGEST:
                raise PgError(f"message {kind!r} of {length} bytes")
            if len(self._buffer) < length + 1:
                break
            body = bytes(self._buffer[5 : length + 1])
            del self._buffer[: length + 1]
            try:
                self._take(kind, body)
            except (struct.error, UnicodeDecodeError) as error:
                raise PgError(f"message {kind!r}: {error}") from error
            if self._result.status:
                done.append(self._result)
                self._result = Result()
        return done

    def _take(self, kind: bytes, body: bytes) -> None:
        if kind == b"D":
            self._result.rows.append(_row(body))
        elif kind == b"C":
            self._result.tags.append(body.rstrip(b"\0").decode())
        elif kind == b"Z":
            self._result.status = body.decode()
        elif kind == b"E":
            error = _refusal(body)
            if error.args[0].startswith(("FATAL", "PANIC")):
                raise error
            self._result.error = error
        elif kind == b"R":
            if struct.unpack_from("!I", body)[0] != 0:
                raise PgError("PostgreSQL wants a password; the lab's network should be trusted")
        elif kind not in b"TSKNAI":  # description of rows, parameters, key, notice, notification, empty query
            raise PgError(f"unexpected message {kind!r}")
