"""What is counted in a stream."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from streams import builder, samples
from streams.builder import Epoch

from remus_agent.protocol.stream_tools.summary import EpochCounts, Summary, epoch_facts, record_facts
from remus_agent.protocol.stream_tools.walk import StreamWalk

EPOCHS = [Epoch({1: 0, 2: 2}, zeros=[5, 6]), Epoch(without=[1])]
STREAM = builder.checkpointed(EPOCHS)
START = len(builder.preamble())


def test_everything_is_counted() -> None:
    summary = Summary(inside=True)
    epochs = [done for structure in StreamWalk().feed(STREAM) if (done := summary.take(structure)) is not None]
    first = EpochCounts(1, START, len(EPOCHS[0].raw), 7, 2, 1)
    assert epochs == [first, EpochCounts(2, START + first.size, len(EPOCHS[1].raw), 6, 0, 0)]
    assert summary.as_dict() == {
        "guest": "redis1",
        "type": "PVH",
        "xen": "4.17",
        "libxl_version": 2,
        "libxc_version": 3,
        "epochs": 2,
        "checkpoints": 2,
        "records": 17,
        "pages": 2,
    }
    details = summary.details()
    assert details["zero_pages"] == 1
    assert details["pages_by_type"] == {"NOTAB": 2, "XALLOC": 2, "XTAB": 1}
    assert details["epoch_pages"] == {"least_pages": 0, "most_pages": 2}
    assert {"layer": "libxc", "type": "PAGE_DATA", "records": 3, "bytes": 8224 + 32 + 24} in details["records_by_type"]
    assert epoch_facts(first)["zero"] == 1


def test_zero_pages_are_not_looked_for_unasked() -> None:
    summary = Summary(inside=False)
    for structure in StreamWalk().feed(STREAM):
        summary.take(structure)
    details = summary.details()
    assert (details["zero_pages"], details["pages_by_type"]) == (None, {})
    assert summary.pages == 2


@pytest.mark.parametrize(("inside", "most"), [(True, 105), (False, 85)])
def test_a_small_record_costs_few_calls(*, inside: bool, most: int) -> None:
    """Streams may have many records of one page: what one of them costs is counted in calls of functions, because
    seconds differ from machine to machine."""

    def calls(records: int) -> int:
        stream = samples.start() + b"".join(samples.page_data([(0, pfn)]) for pfn in range(records))
        walk, summary = StreamWalk(), Summary(inside=inside)
        events: Counter[str] = Counter()
        sys.setprofile(lambda _frame, event, _argument: events.update([event]))
        try:
            for structure in walk.feed(stream):
                summary.take(structure)
        finally:
            sys.setprofile(None)
        return events["call"] + events["c_call"]

    assert (calls(200) - calls(100)) / 100 <= most


def test_nothing_is_known_of_nothing() -> None:
    summary = Summary(inside=True)
    assert summary.as_dict()["xen"] is None
    assert summary.details()["epoch_pages"] == {"least_pages": None, "most_pages": None}


def test_facts_of_records() -> None:
    found = [record_facts(structure) for structure in StreamWalk().feed(STREAM)]
    assert found[0]["record"] is None
    assert found[0]["length"] == 131
    assert found[8] == {
        "record": 5,
        "offset": START,
        "layer": "libxc",
        "type": "PAGE_DATA",
        "length": 8216,
        "epoch": 1,
        "pfns": 2,
        "pages": 2,
    }
