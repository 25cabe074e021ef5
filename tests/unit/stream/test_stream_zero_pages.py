"""Pages of zeros are found and put back, against the slow way."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from remus_agent.protocol.stream import records
from remus_agent.protocol.stream.constants import Layer
from remus_agent.protocol.stream.reader import iter_records
from remus_agent.protocol.stream.zero_pages import with_zero_pages, zero_pages


def test_zero_pages_are_those_without_any_bit() -> None:
    pages = np.zeros((5, 4096), np.uint8)
    pages[1, 0] = pages[2, 4095] = pages[3, 63] = 1
    assert zero_pages(pages.data).tolist() == [True, False, False, False, True]
    assert zero_pages(pages.tobytes()).tolist() == [True, False, False, False, True]
    assert zero_pages(b"").tolist() == zero_pages(pages[:0].data).tolist() == []


def page_record(*entries: tuple[int, int, bytes]) -> records.Record:
    head = struct.pack("<II", len(entries), 0) + b"".join(struct.pack("<Q", t << 60 | pfn) for t, pfn, _ in entries)
    raw = records.pack_record(1, head + b"".join(content for *_, content in entries))
    (record,) = iter_records(raw)
    return record


@pytest.mark.parametrize("kinds", ["c", "z", "n", "czn", "zcz", "ccznnzzcc", "nzc" * 5])
def test_zero_pages_are_put_between_the_others(kinds: str) -> None:
    facts = {"c": (0, b"c"), "z": (0xE, b""), "n": (0xF, b"")}
    entries = [(facts[kind][0], pfn, facts[kind][1] * 4096) for pfn, kind in enumerate(kinds)]
    raw = b"".join(bytes(buffer) for buffer in with_zero_pages(page_record(*entries)))
    (record,) = iter_records(raw, layer=Layer.LIBXC)
    pages = records.parse_page_data(record.body, 8)
    assert pages.pfns.tolist() == list(range(len(kinds)))
    assert pages.types.tolist() == [{"c": 0, "z": 0, "n": 0xF}[kind] for kind in kinds]
    expected = b"".join({"c": b"c" * 4096, "z": bytes(4096), "n": b""}[kind] for kind in kinds)
    assert bytes(pages.content) == expected


def test_many_zero_pages_become_records_of_1024_and_content_is_not_copied() -> None:
    memory = bytearray(b"c" * 4096)
    entries = [(0xE, pfn, b"") for pfn in range(2000)] + [(0, 5000, bytes(memory))]
    record = page_record(*entries)
    raw = with_zero_pages(record)
    found = list(iter_records(b"".join(bytes(buffer) for buffer in raw)))
    assert [records.parse_page_data(one.body, 8).pages for one in found] == [1024, 977]
    assert isinstance(raw[-1], memoryview)
    assert raw[-1].obj is record.raw.obj
