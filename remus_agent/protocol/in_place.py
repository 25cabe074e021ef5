"""Decoders that receive into the memory where the bytes of a large message stay: the part that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from remus_agent.errors import ProtocolError

Buffer = bytes | bytearray | memoryview
E = TypeVar("E", bound=ProtocolError)
T = TypeVar("T")


class InPlaceDecoder(ABC, Generic[T, E]):
    """Turns received bytes into items, in any chunking.

    The transport asks `get_buffer()` for memory, receives into it and reports with `buffer_updated()`. Once bytes were bad
    the decoder stays dead: `failed` has the error, and both methods raise it.
    """

    _error: ClassVar[type[ProtocolError]]
    """What bad bytes raise: E."""

    def __init__(self) -> None:
        self.failed: E | None = None

    def get_buffer(self, hint: int = -1) -> memoryview:  # noqa: ARG002 - asyncio.BufferedProtocol's signature
        """Memory for the next received bytes, never empty. hint is not used: the format knows what comes."""
        if self.failed is not None:
            raise self.failed
        return self._room()

    def buffer_updated(self, count: int) -> list[T]:
        """count bytes were received into the memory of the last get_buffer(). Returns what is complete now, in order.

        Raises the decoder's error for bad bytes; when items before them were complete, those are returned and `failed`
        is set, so that what was received does not depend on the chunking.
        """
        if self.failed is not None:
            raise self.failed
        items: list[T] = []
        try:
            self._took(count, items)
        except self._error as error:
            self.failed = error  # type: ignore[assignment]
            if not items:
                raise
        return items

    def feed(self, data: Buffer) -> list[T]:
        """The same for bytes that are in memory already (copies them)."""
        items: list[T] = []
        view = memoryview(data).cast("B")
        while view.nbytes and self.failed is None:
            room = self.get_buffer()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            try:
                items += self.buffer_updated(count)
            except self._error:
                if not items:
                    raise
            view = view[count:]
        return items

    @abstractmethod
    def _room(self) -> memoryview:
        """As `get_buffer`, of a decoder that lives."""

    @abstractmethod
    def _took(self, count: int, items: list[T]) -> None:
        """As `buffer_updated`; adds to items."""
