"""What a client asks a guest, and whether an answer is the one to that question. No I/O.

A question is numbered; answers come in order on one connection. `damaged` means that the answer can't be one to what was asked.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass

BLOB_BYTES = 64 * 1024
"""Written into the guest's memory at the beginning and read again at the end."""


class Damaged(Exception):
    """The answer is none to this question."""


class Unanswerable(Exception):
    """The guest says that it can't answer such questions; the message says what it said."""


@dataclass(frozen=True)
class Answer:
    """One answer. value: the number that the guest keeps, where it keeps one. rest: bytes after it."""

    value: int | None
    rest: bytes


class Echo:
    """A service that sends every line back."""

    pipelined = True
    counts = False

    def question(self, number: int) -> bytes:
        """The bytes to send."""
        return f"remus-drill {number}\n".encode()

    def answer(self, number: int, received: bytes) -> Answer | None:
        """The answer at the beginning of what was received; None while it is not whole."""
        line, end, rest = received.partition(b"\n")
        if not end:
            return None
        if line.rstrip(b"\r") + b"\n" != self.question(number):
            raise Damaged(f"question {number} was answered with {line[:60]!r}")
        return Answer(None, rest)


class Http:
    """HEAD of one path, over and over on one connection."""

    pipelined = False
    counts = False

    def __init__(self, host: str, path: str = "/") -> None:
        self._request = f"HEAD {path} HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive\r\n\r\n".encode()

    def question(self, number: int) -> bytes:
        """The bytes to send."""
        del number
        return self._request

    def answer(self, number: int, received: bytes) -> Answer | None:
        """Any status counts: that it is an answer is what matters."""
        head, end, rest = received.partition(b"\r\n\r\n")
        if not end:
            return None
        if not re.match(rb"HTTP/1\.[01] \d{3}", head):
            raise Damaged(f"question {number} was answered with {head[:60]!r}")
        return Answer(None, rest)


class Redis:
    """One counter in the guest's memory: a copy that lost something gives a number twice."""

    pipelined = True
    counts = True

    def __init__(self, key: str) -> None:
        self.key = key

    def question(self, number: int) -> bytes:
        """The bytes to send."""
        del number
        return command("INCR", self.key)

    def answer(self, number: int, received: bytes) -> Answer | None:
        """The counter's new value."""
        line, end, rest = received.partition(b"\r\n")
        if not end:
            return None
        if line.startswith(b"-"):
            raise Unanswerable(line[1:].decode(errors="replace"))
        if not re.fullmatch(rb":-?\d{1,19}", line):
            raise Damaged(f"question {number} was answered with {line[:60]!r}")
        return Answer(int(line[1:]), rest)


Asking = Echo | Http | Redis


def asking(kind: str, host: str, key: str, path: str = "/") -> Asking:
    """By its name in the drill's options."""
    if kind == "echo":
        return Echo()
    return Http(host, path) if kind == "http" else Redis(key)


def command(*words: str | bytes) -> bytes:
    """A command as Redis reads it."""
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        data = word if isinstance(word, bytes) else word.encode()
        parts.append(f"${len(data)}\r\n".encode() + data + b"\r\n")
    return b"".join(parts)


def blob(key: str) -> bytes:
    """What is kept in the guest's memory meanwhile: the same bytes for the same key, which no page of zeros looks like."""
    return random.Random(key).randbytes(BLOB_BYTES)  # noqa: S311 - not a secret


def digest(data: bytes) -> str:
    """For comparing blobs in a history."""
    return hashlib.sha256(data).hexdigest()
