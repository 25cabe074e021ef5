"""What a stream means for its receiver, page by page: slow, simple, and shares nothing with the tools."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from remus_agent.protocol.stream.reader import StreamReader
from remus_agent.protocol.stream.records import Record
from streams.builder import Epoch

Memory = dict[int, bytes]


def of_epochs(epochs: Sequence[Epoch]) -> tuple[Memory, list[bytes]]:
    """Memory and tail after a number of epochs, from their facts."""
    memory: Memory = {}
    for epoch in epochs:
        memory |= {pfn: bytes([fill]) * 4096 for pfn, fill in epoch.pages.items()}
        memory |= {pfn: bytes(4096) for pfn in epoch.zeros}
    last = epochs[-1]
    return memory, split(last.tail + last.device_model)


def of_plain(stream: bytes) -> tuple[Memory, list[bytes]]:
    """Memory and tail that a plain restore has at the END. An entry without content changes nothing."""
    reader = StreamReader()
    events = reader.feed(stream)
    reader.close()
    memory: Memory = {}
    tail = []
    for event in events:
        if not isinstance(event, Record):
            continue
        if event.layer.value == "libxc" and event.type == 1:
            memory |= _pages(bytes(event.body))
        elif event.type not in (0, 1, 0x10, 0x11, 0x12):
            tail.append(bytes(event.raw))
    return memory, tail


def split(raw: bytes) -> list[bytes]:
    """Whole records, one by one."""
    found = []
    while raw:
        size = 8 + -(-struct.unpack_from("<II", raw)[1] // 8) * 8
        found.append(raw[:size])
        raw = raw[size:]
    return found


def _pages(body: bytes) -> Memory:
    (count,) = struct.unpack_from("<I", body)
    at = 8 + 8 * count
    memory: Memory = {}
    for (entry,) in struct.iter_unpack("<Q", body[8:at]):
        if entry >> 60 < 0xD:
            memory[entry & (1 << 52) - 1] = body[at : at + 4096]
            at += 4096
    return memory
