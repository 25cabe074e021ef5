"""Redis' wire format (RESP2): commands out, replies in; no sockets here."""

from __future__ import annotations

from typing import TypeAlias


class RespError(Exception):
    """Bytes that are not RESP2."""


class ServerError(Exception):
    """An error reply (`-ERR ...`), as a value in its place among the replies."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServerError) and self.args == other.args

    def __hash__(self) -> int:
        return hash(self.args)


def command(*words: str | int) -> bytes:
    """One command as Redis wants it."""
    parts = [str(word).encode() for word in words]
    return b"".join([b"*%d\r\n" % len(parts), *(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)])


Reply: TypeAlias = "int | str | bytes | list[Reply] | ServerError | None"
"""One reply: integer, simple string, bulk string, array, error, or nothing."""


class _Incomplete(Exception):
    pass


class Decoder:
    """Replies from bytes in any chunking."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a reply that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that DATA completes."""
        self._buffer += data
        replies: list[Reply] = []
        offset = 0
        try:
            while offset < len(self._buffer):
                reply, offset = self._parse(offset)
                replies.append(reply)
        except _Incomplete:
            pass
        del self._buffer[:offset]
        return replies

    def _line(self, offset: int) -> tuple[bytes, int]:
        end = self._buffer.find(b"\r\n", offset)
        if end < 0:
            raise _Incomplete
        return bytes(self._buffer[offset:end]), end + 2

    def _number(self, line: bytes) -> int:
        try:
            return int(line[1:])
        except ValueError as error:
            raise RespError(f"not a number: {line!r}") from error

    def _parse(self, offset: int) -> tuple[Reply, int]:
        line, after = self._line(offset)
        kind = line[:1]
        if kind == b":":
            return self._number(line), after
        if kind == b"+":
            return line[1:].decode(errors="replace"), after
        if kind == b"-":
            return ServerError(line[1:].decode(errors="replace")), after
        if kind == b"$":
            return self._bulk(self._number(line), after)
        if kind == b"*":
            return self._array(self._number(line), after)
        raise RespError(f"unknown reply {line[:40]!r}")

    def _bulk(self, size: int, offset: int) -> tuple[Reply, int]:
        if size < 0:
            return None, offset
        end = offset + size
        if len(self._buffer) < end + 2:
            raise _Incomplete
        if self._buffer[end : end + 2] != b"\r\n":
            raise RespError("a bulk string does not end where it says")
        return bytes(self._buffer[offset:end]), end + 2

    def _array(self, count: int, offset: int) -> tuple[Reply, int]:
        if count < 0:
            return None, offset
        items: list[Reply] = []
        for _ in range(count):
            item, offset = self._parse(offset)
            items.append(item)
        return items, offset
