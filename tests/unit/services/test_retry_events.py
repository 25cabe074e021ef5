"""What a guest that looks for its backup again and again leaves in the events."""

from __future__ import annotations

from typing import Any

from remus_agent.adapters.sim.local import SimEvents
from remus_agent.machines.primary import State
from remus_agent.services.retry_events import Complaints, RetryEvents, VainSessions


def noted(*steps: tuple[State, str | None]) -> list[tuple[str, dict[str, Any]]]:
    """The events of these steps: states, each with the reason that is known then."""
    retries = RetryEvents()
    found = [(state.value, retries.detail(state, reason)) for state, reason in steps]
    return [(state, detail) for state, detail in found if detail is not None]


def silent(reason: str, attempts: int) -> list[tuple[State, str | None]]:
    """So many attempts in vain, each for this reason."""
    return [(State.RECONNECTING, reason), (State.SILENT, reason)] * attempts


def test_attempts_in_vain_are_counted_instead_of_noted() -> None:
    steps = [(State.SILENT, "lost"), *silent("refused", 100), *silent("timeout", 20)]
    found = noted(*steps, (State.RECONNECTING, "timeout"), (State.RESEEDING, "timeout"), (State.PROTECTED, "timeout"))
    assert found == [
        ("silent", {"reason": "lost"}),
        ("reconnecting", {"reason": "refused"}),
        ("silent", {"reason": "refused"}),
        ("silent", {"reason": "timeout", "attempts": 100}),
        ("reseeding", {"reason": "timeout", "attempts": 20}),
        ("protected", {"reason": "timeout"}),
    ]


def test_a_guest_that_runs_alone_is_as_quiet() -> None:
    steps = [(State.SEEKING, None), *[(State.SOLO, "refused"), (State.SEEKING, "refused")] * 50]
    assert noted((State.SOLO, None), *steps, (State.REPROTECTING, "refused")) == [
        ("solo", {}),
        ("seeking", {}),
        ("solo", {"reason": "refused"}),
        ("reprotecting", {"reason": "refused", "attempts": 50}),
    ]


def test_attempts_that_get_as_far_as_copying_are_counted_as_well() -> None:
    steps = [(State.SEEKING, "full"), (State.REPROTECTING, "full"), (State.SOLO, "full")] * 50
    assert noted(
        (State.SOLO, None), *steps, (State.SEEKING, "full"), (State.REPROTECTING, "full"), (State.PROTECTED, None)
    ) == [
        ("solo", {}),
        ("seeking", {"reason": "full"}),
        ("reprotecting", {"reason": "full"}),
        ("solo", {"reason": "full"}),
        ("protected", {"attempts": 50}),
    ]
    again = [(State.RECONNECTING, "full"), (State.RESEEDING, "full"), (State.SILENT, "full")] * 50
    assert len(noted((State.SILENT, "lost"), *again)) == 4


def test_what_cannot_be_done_is_noted_once_for_each_reason() -> None:
    events = SimEvents()
    complaints = Complaints(events)
    for reason in ["busy"] * 3 + ["gone"] * 3 + ["busy"]:
        complaints.note("web1", "stale-guest-stands", reason=reason)
    complaints.note("web1", "stale-guest-not-paused", reason="busy")
    complaints.over("stale-guest-stands")
    complaints.note("web1", "stale-guest-stands", reason="busy")
    assert [(event, detail["reason"]) for event, detail in events.details("web1")] == [
        ("stale-guest-stands", "busy"),
        ("stale-guest-stands", "gone"),
        ("stale-guest-stands", "busy"),
        ("stale-guest-not-paused", "busy"),
        ("stale-guest-stands", "busy"),
    ]


def test_a_backup_counts_sessions_that_committed_nothing() -> None:
    events = SimEvents()
    sink = VainSessions(events)

    def session(reason: str) -> None:
        sink.note("web1", "receiving", session="s", primary="alpha")
        sink.note("web1", "discarded", because="the connection ended", reason=reason)

    for reason in ["full"] * 9 + ["slow"] * 5:
        session(reason)
    sink.note("web1", "receiving", primary="alpha")
    sink.note("db1", "receiving", primary="alpha")
    sink.note("web1", "ready", epoch=1)
    sink.note("web1", "orphaned", epoch=7)
    sink.note("web1", "discarded", epoch=7)
    session("full")
    sink.note("web1", "receiving", primary="gamma")
    told = [(event, detail.get("reason"), detail.get("attempts")) for event, detail in events.details("web1")]
    assert told == [
        ("receiving", None, None),
        ("discarded", "full", None),
        ("discarded", "slow", 9),
        ("ready", None, 5),
        ("orphaned", None, None),
        ("discarded", None, None),
        ("receiving", None, None),
        ("discarded", "full", None),
        ("receiving", None, None),
    ]
    assert len(events.details("db1")) == 1


def test_the_last_event_says_whether_output_is_held() -> None:
    witness_silent = [(State.GOING_SOLO, "x"), *silent("x", 1)] * 3
    found = noted((State.SILENT, "x"), *silent("x", 3), *witness_silent, (State.GOING_SOLO, "x"), (State.SOLO, "x"))
    assert [state for state, _ in found] == [
        "silent",
        "reconnecting",
        "silent",
        "going-solo",
        "silent",
        "solo",
    ]
    assert [detail.get("attempts") for _, detail in found] == [None, None, None, 2, 1, 2]


def test_it_begins_anew_with_every_silence() -> None:
    lost = [(State.SILENT, "lost"), *silent("lost", 5), (State.RECONNECTING, "lost"), (State.RESEEDING, "lost")]
    once = [*lost, (State.PROTECTED, None)]
    states = ["silent", "reconnecting", "silent", "reseeding", "protected"]
    assert [state for state, _ in noted(*once, *once)] == [*states, *states]


def test_other_states_are_always_noted() -> None:
    steps = [(State.STANDING_DOWN, "x"), (State.STOOD_DOWN, "x"), (State.RETURNING, "x")] * 2
    assert len(noted(*steps)) == len(steps)
