"""What a guest that looks for its backup again and again leaves in the events."""

from __future__ import annotations

from typing import Any

from remus_agent.machines.primary import State
from remus_agent.services.retry_events import RetryEvents


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
    once = [(State.SILENT, "lost"), *silent("lost", 5), (State.RECONNECTING, "lost"), (State.RESEEDING, "lost")]
    states = ["silent", "reconnecting", "silent", "reseeding"]
    assert [state for state, _ in noted(*once, *once)] == [*states, *states]


def test_other_states_are_always_noted() -> None:
    steps = [(State.STANDING_DOWN, "x"), (State.STOOD_DOWN, "x"), (State.RETURNING, "x")] * 2
    assert len(noted(*steps)) == len(steps)
