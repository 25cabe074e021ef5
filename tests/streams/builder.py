"""Builds small saved domains whose HVM_CONTEXT is one that Xen could have written."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream import records, writer
from streams import samples

CONFIG: dict[str, Any] = {"c_info": {"type": "pvh", "name": "redis1"}, "b_info": {"max_memkb": 131072}}


@dataclass(frozen=True)
class Epoch:
    """pages: byte that fills each pfn; zeros: pfns sent as XALLOC; without: pfns sent as XTAB; emulator: state of a
    device model, empty for none."""

    pages: Mapping[int, int] = field(default_factory=dict)
    zeros: Sequence[int] = ()
    without: Sequence[int] = ()
    nsec: int = 5
    rip: int = 0x1000
    params: Sequence[tuple[int, int]] = ((1, 0xFEFFC),)
    emulator: bytes = b""
    context: bytes | None = None

    @property
    def memory(self) -> bytes:
        content = b"".join(bytes([fill]) * c.PAGE_SIZE for fill in self.pages.values())
        parts = writer.page_data(np.array(list(self.pages), dtype=np.uint64), memoryview(content))
        parts += writer.page_xalloc(np.array(self.zeros, dtype=np.uint64))
        raw = b"".join(b"".join(part) for part in parts)
        if self.without:
            entries = b"".join(struct.pack("<Q", c.PageType.XTAB << 60 | pfn) for pfn in self.without)
            raw += records.pack_record(1, struct.pack("<II", len(self.without), 0) + entries)
        return raw

    @property
    def tail(self) -> bytes:
        blob = self.context if self.context is not None else samples.context(rip=self.rip)
        return writer.tsc_info(0, 2_000_000, self.nsec, 1) + writer.hvm_context(blob) + writer.hvm_params(self.params)

    @property
    def device_model(self) -> bytes:
        return writer.emulator_context(self.emulator) if self.emulator else b""

    @property
    def raw(self) -> bytes:
        """As an epoch of a stream with checkpoints."""
        return self.memory + self.tail + writer.checkpoint() + self.device_model + writer.checkpoint_end()


def preamble(config: Any = None, *, kind: str = "pvh") -> bytes:
    found = config if config is not None else CONFIG | {"c_info": CONFIG["c_info"] | {"type": kind}}
    return writer.preamble(json.dumps(found), (4, 17), bytes(24), bytes(16))


def checkpointed(epochs: Sequence[Epoch], start: bytes | None = None) -> bytes:
    """What a sender of checkpoints has written when it stops between two epochs."""
    return (start or preamble()) + b"".join(epoch.raw for epoch in epochs)


def end(epoch: Epoch) -> bytes:
    """The last part of a stream that ends."""
    return epoch.memory + epoch.tail + writer.end_of_libxc() + epoch.device_model + writer.end_of_libxl()


def plain(epochs: Sequence[Epoch], start: bytes | None = None) -> bytes:
    """What a plain stream of the last of these epochs is, if zero pages are sent in full."""
    memory = b"".join(one.memory for one in epochs[:-1])
    return (start or preamble()) + memory + end(epochs[-1])
