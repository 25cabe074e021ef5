"""What a stream holds, counted: records and bytes by type, pages by type, zero pages, epochs. Constant memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream.page_data import checked_pages, content_pages
from remus_agent.protocol.stream.records import Record, record_name
from remus_agent.protocol.stream.zero_pages import zero_pages
from remus_agent.protocol.stream_tools.rules import Guest
from remus_agent.protocol.stream_tools.walk import Structure


@dataclass(slots=True)
class EpochCounts:
    """One epoch. start: of its first record, bytes from the start of the stream; size: bytes of its records; pages:
    with content; zero: of these all zero, None where nobody looked."""

    epoch: int
    start: int
    size: int = 0
    records: int = 0
    pages: int = 0
    zero: int | None = None


class Summary:
    """Takes every structure of a stream. inside: look at the pages, for their types and for zero ones."""

    def __init__(self, *, inside: bool) -> None:
        self.guest = Guest()
        self.epochs = 0
        self.pages = 0
        self.zero_pages: int | None = 0 if inside else None
        self._inside = inside
        self._records: Counter[tuple[c.Layer, int]] = Counter()
        self._bytes: Counter[tuple[c.Layer, int]] = Counter()
        self._types = np.zeros(16, dtype=np.int64)
        self._epoch: EpochCounts | None = None
        self._least_pages: int | None = None
        self._most_pages = 0

    def take(self, structure: Structure) -> EpochCounts | None:
        """Count a structure; returns the counts of the epoch that it completes. Raises StreamError (see
        `Guest`)."""
        record = structure.event
        if not isinstance(record, Record):
            self.guest.take(structure)
            return None
        size = len(record.raw)
        key = (record.layer, record.type)
        self._records[key] += 1
        self._bytes[key] += size
        if structure.epoch == 0:
            return None
        if self._epoch is None or self._epoch.epoch != structure.epoch:
            self._epoch = EpochCounts(structure.epoch, structure.offset, zero=0 if self._inside else None)
        self._epoch.size += size
        self._epoch.records += 1
        if structure.is_libxc(c.LibxcRecordType.PAGE_DATA):
            self._count_pages(record, self._epoch)
        return self._complete(self._epoch) if structure.completes else None

    def as_dict(self) -> dict[str, Any]:
        """What is known about the whole stream."""
        guest = self.guest
        return {
            "guest": guest.name,
            "type": guest.kind,
            "xen": None if guest.domain is None else "{}.{}".format(*guest.domain.xen),
            "libxl_version": None if guest.version is None else c.LIBXL_VERSION,
            "libxc_version": guest.version,
            "epochs": self.epochs,
            "checkpoints": self._records[c.Layer.LIBXL, c.LibxlRecordType.CHECKPOINT_END],
            "records": sum(self._records.values()),
            "pages": self.pages,
        }

    def details(self) -> dict[str, Any]:
        """More of it: records by type, pages an epoch; with `inside` zero pages and pages by type."""
        types = {kind.name: int(self._types[kind]) for kind in c.PageType if self._types[kind]}
        by_type = [
            {
                "layer": layer.value,
                "type": name,
                "records": self._records[layer, kind],
                "bytes": self._bytes[layer, kind],
            }
            for layer, name, kind in sorted((layer, record_name(layer, kind), kind) for layer, kind in self._records)
        ]
        epochs = {"least_pages": self._least_pages, "most_pages": self._most_pages if self.epochs else None}
        return {
            "zero_pages": self.zero_pages,
            "pages_by_type": types,
            "records_by_type": by_type,
            "epoch_pages": epochs,
        }

    def _count_pages(self, record: Record, epoch: EpochCounts) -> None:
        count = content_pages(record)
        self.pages += count
        epoch.pages += count
        if self.zero_pages is None or epoch.zero is None:
            return
        pages = checked_pages(record)
        self._types += np.bincount(pages.types, minlength=16)
        if count:
            zero = int(np.count_nonzero(zero_pages(pages.content)))
            self.zero_pages += zero
            epoch.zero += zero

    def _complete(self, epoch: EpochCounts) -> EpochCounts:
        self.epochs = epoch.epoch
        self._least_pages = epoch.pages if self._least_pages is None else min(self._least_pages, epoch.pages)
        self._most_pages = max(self._most_pages, epoch.pages)
        self._epoch = None
        return epoch


def record_facts(structure: Structure) -> dict[str, Any]:
    """One record or header, for a list of them."""
    record = structure.event
    facts: dict[str, Any] = {
        "record": record.ordinal if isinstance(record, Record) else None,
        "offset": structure.offset,
        "layer": structure.layer,
        "type": structure.name,
        "length": record.length if isinstance(record, Record) else len(structure.raw),
        "epoch": structure.epoch or None,
    }
    if isinstance(record, Record) and structure.is_libxc(c.LibxcRecordType.PAGE_DATA):
        pages = checked_pages(record)
        facts |= {"pfns": len(pages.pfns), "pages": pages.pages}
    return facts


def epoch_facts(epoch: EpochCounts) -> dict[str, Any]:
    """One epoch, for a list of them."""
    return asdict(epoch)
