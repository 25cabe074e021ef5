"""The recorder: what of a run becomes an event of its trace, and what does not."""

from __future__ import annotations

from typing import Literal

import pytest

from remus_agent.machines.authority import Ownership
from remus_agent.protocol.replication.messages import Hello, Welcome
from remus_agent.store_ports import CommitRecord
from tests.formal.trace import Action, Event
from tests.model.recorder import Recorder
from tests.model.world import GUEST, UUID

FIRST, SECOND = "11111111-2222-4333-8444-000000000001", "11111111-2222-4333-8444-000000000002"


def record(owner: str, generation: int, state: Literal["solo", "protected"] = "solo", by: str = "") -> Ownership:
    return Ownership(owner, generation, state, "beta" if state == "protected" else None, GUEST, "", by or owner)


def agree(recorder: Recorder, session: str, generation: int = 2) -> None:
    recorder.said(
        Hello(
            purpose="protect",
            session=session,
            generation=generation,
            domain=GUEST,
            uuid=UUID,
            guest_type="pvh",
            memory_kib=48,
            xen_version="4.20.0",
            cpu_policy="c0ffee",
            host="alpha",
        )
    )
    recorder.said(Welcome(host="beta", session=session, free_memory_kib=1 << 20))


@pytest.fixture
def recorder() -> Recorder:
    """Of a run whose guest is on record."""
    made = Recorder()
    made.changed(record("alpha", 1))
    return made


def test_the_first_record_is_where_a_trace_begins() -> None:
    recorder = Recorder()
    recorder.saw("alpha", Action.AGENT_CRASH)
    recorder.changed(record("alpha", 1))
    assert recorder.events == []


def test_a_session_stands_where_its_backup_agreed_and_only_if_it_was_used(recorder: Recorder) -> None:
    agree(recorder, FIRST)
    agree(recorder, SECOND)
    recorder.saw("beta", Action.AGENT_CRASH)
    recorder.barrier("alpha", SECOND)
    assert recorder.events == [
        Event("alpha", Action.SESSION, 2),
        Event("beta", Action.AGENT_CRASH),
        Event("alpha", Action.BARRIER, 2, 1),
    ]


def test_epochs_are_counted_in_each_session(recorder: Recorder) -> None:
    for session in (FIRST, SECOND):
        agree(recorder, session)
        for epoch in (1, 2):
            recorder.barrier("alpha", session)
            recorder.committed("beta", CommitRecord(session, 2, epoch, b""))
            recorder.saw("alpha", Action.RELEASE)
    assert [(event.action.name, event.epoch) for event in recorder.events] == [
        (name, epoch)
        for _ in (FIRST, SECOND)
        for name, epoch in (
            ("SESSION", 0),
            *((name, epoch) for epoch in (1, 2) for name in ("BARRIER", "COMMIT", "RELEASE")),
        )
    ]


def test_changes_of_the_record_are_told_apart(recorder: Recorder) -> None:
    recorder.changed(record("alpha", 2, "protected"))
    recorder.changed(record("beta", 3))
    recorder.changed(record("beta", 4))
    recorder.changed(record("alpha", 5, by="beta"))
    assert recorder.events == [
        Event("alpha", Action.PROTECT, 2),
        Event("beta", Action.TAKE, 3),
        Event("beta", Action.SOLO, 4),
        Event("beta", Action.GIVE, 5),
    ]


def test_who_stands_down_does_so_for_the_other_owner_although_it_has_given_the_guest_back(recorder: Recorder) -> None:
    recorder.changed(record("beta", 2))
    recorder.changed(record("alpha", 3, by="beta"))
    recorder.saw("alpha", Action.STAND_DOWN)
    recorder.saw("alpha", Action.RESUME)
    assert recorder.events[-2:] == [Event("alpha", Action.STAND_DOWN, 2), Event("alpha", Action.RESUME, 3)]


def test_output_that_is_open_is_not_opened_again(recorder: Recorder) -> None:
    recorder.saw("alpha", Action.OPEN)
    assert recorder.events == []
    agree(recorder, FIRST)
    recorder.barrier("alpha", FIRST)
    recorder.saw("alpha", Action.OPEN)
    recorder.saw("alpha", Action.OPEN)
    assert recorder.events[-2:] == [Event("alpha", Action.BARRIER, 2, 1), Event("alpha", Action.OPEN, 1)]


def test_what_comes_after_the_end_of_a_run_is_no_part_of_it(recorder: Recorder) -> None:
    recorder.stop()
    recorder.saw("alpha", Action.HOST_CRASH)
    recorder.changed(record("beta", 2))
    agree(recorder, FIRST)
    recorder.barrier("alpha", FIRST)
    assert recorder.events == []


def test_a_run_whose_record_was_removed_is_no_trace(recorder: Recorder) -> None:
    recorder.changed(None)
    with pytest.raises(ValueError, match="forgotten"):
        _ = recorder.events


def test_a_barrier_outside_of_a_session_is_a_defect(recorder: Recorder) -> None:
    with pytest.raises(AssertionError, match="outside of a session"):
        recorder.barrier("alpha", None)
