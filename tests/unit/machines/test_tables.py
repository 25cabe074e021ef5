"""The tables as data: complete, reachable, and the diagrams in the docs are theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from remus_agent.machines import backup, primary, primary_table
from remus_agent.machines.primary import Effect, Event
from remus_agent.machines.primary_table import TABLE
from remus_agent.machines.table import IllegalEvent, Table

DOCS = Path(__file__).parents[3] / "docs"
TABLES: list[tuple[Table[Any, Any, Any], Any]] = [
    (
        primary_table.TABLE,
        {
            primary.State.CONNECTING,
            primary.State.RECONNECTING,
            primary.State.SOLO,
            primary.State.STANDING_DOWN,
            primary.State.STARTING,
        },
    ),
    (backup.TABLE, {backup.State.RECEIVING}),
]


@pytest.mark.parametrize(("table", "starts"), TABLES, ids=["primary", "backup"])
def test_every_state_is_reached_and_every_row_says_why(table: Table[Any, Any, Any], starts: set[Any]) -> None:
    reached = set(starts)
    while True:
        more = {row.then for row in table.rows if row.state in reached} - reached
        if not more:
            break
        reached |= more
    assert reached == set(type(next(iter(starts))))
    assert all(row.comment.endswith(".") for row in table.rows)


@pytest.mark.parametrize(("table", "starts"), TABLES, ids=["primary", "backup"])
def test_what_is_not_in_the_table_is_refused(table: Table[Any, Any, Any], starts: set[Any]) -> None:
    events = {type(row.event) for row in table.rows}.pop()
    for state in type(next(iter(starts))):
        for event in events:
            if table.accepts(state, event):
                assert table.step(state, event).state is state
            else:
                with pytest.raises(IllegalEvent):
                    table.step(state, event)


def test_a_primary_that_may_have_a_copy_elsewhere_frees_output_only_on_proof() -> None:
    """G1 and G3 as a property of the table: from a held state only four events lead to free output."""
    held = {
        primary.State.PROTECTED,
        primary.State.SILENT,
        primary.State.RECONNECTING,
        primary.State.RESEEDING,
        primary.State.STOPPING,
        primary.State.GOING_SOLO,
        primary.State.RETIRING,
    }
    proofs = {
        primary.Event.SOLE_OWNER,
        primary.Event.COPY_DISCARDED,
        primary.Event.STOP_FORCED,
        primary.Event.GUEST_ENDED,
    }
    for row in primary_table.TABLE.rows:
        if row.state in held and primary.Effect.FREE_OUTPUT in row.effects:
            assert row.event in proofs, row


def test_a_copy_is_activated_only_on_an_operators_proof_or_the_witnesses_word() -> None:
    ways = {(row.state, row.event) for row in backup.TABLE.rows if backup.Effect.ACTIVATE in row.effects}
    assert ways == {
        (backup.State.ORPHANED, backup.Event.FAILOVER_ASKED),
        (backup.State.TAKING, backup.Event.OWNERSHIP_WON),
        (backup.State.STALE, backup.Event.LOSS_ACCEPTED),
    }


def test_output_is_opened_only_by_the_sole_owner() -> None:
    for row in primary_table.TABLE.rows:
        if primary.Effect.OPEN_OUTPUT in row.effects:
            alone = row.event is primary.Event.SOLE_OWNER
            already = {primary.State.SEEKING, primary.State.REPROTECTING}
            assert alone or (row.state in already and row.event is primary.Event.SESSION_LOST), row


def test_a_guest_that_an_earlier_agent_has_built_runs_only_on_a_confirmed_ownership() -> None:
    ways = {(row.state, row.event) for row in primary_table.TABLE.rows if primary.Effect.START_GUEST in row.effects}
    assert ways == {(primary.State.STARTING, primary.Event.SOLE_OWNER)}


@pytest.mark.parametrize(("table", "starts"), TABLES, ids=["primary", "backup"])
def test_the_documented_diagram_is_the_table(table: Table[Any, Any, Any], starts: set[Any]) -> None:
    assert table.mermaid() in (DOCS / "protocol.md").read_text()


_ASKED = {Event.STOP_ASKED, Event.STOP_FORCED}
OUTCOMES: dict[Effect, set[Event]] = {
    Effect.OPEN_SESSION: {Event.SESSION_OPENED, Event.SESSION_LOST, Event.ANOTHER_OWNS, Event.GUEST_ENDED},
    Effect.SEED: {
        *_ASKED,
        Event.COMMITTED,
        Event.COMMIT_UNCERTAIN,
        Event.SESSION_LOST,
        Event.ANOTHER_OWNS,
        Event.GUEST_ENDED,
    },
    Effect.RUN_EPOCHS: {
        *_ASKED,
        Event.RETIRE_ASKED,
        Event.SWITCHOVER_ASKED,
        Event.SESSION_LOST,
        Event.ANOTHER_OWNS,
        Event.GUEST_ENDED,
    },
    Effect.WAIT_FOR_RETRY: {*_ASKED, Event.RETIRE_ASKED, Event.RETRY_DUE},
    Effect.DISCARD_COPY: {Event.COPY_DISCARDED, Event.SESSION_LOST, Event.ANOTHER_OWNS},
    Effect.FREE_OUTPUT: {Event.OUTPUT_FREE, Event.OUTPUT_HELD, Event.ANOTHER_OWNS},
    Effect.BECOME_SOLE_OWNER: {Event.SOLE_OWNER, Event.WITNESS_SILENT, Event.ANOTHER_OWNS},
    Effect.PAUSE_GUEST: {Event.GUEST_PAUSED, Event.GUEST_NOT_PAUSED, Event.GUEST_ENDED},
    Effect.AWAIT_OWNER: {
        *_ASKED,
        Event.RETIRE_ASKED,
        Event.OWNER_RUNS,
        Event.GUEST_RUNS,
        Event.GUEST_ENDED,
        Event.HANDED_BACK,
        Event.RETRY_DUE,
    },
    Effect.TAKE_BACK: {Event.GUEST_RESUMED, Event.RESUME_FAILED, Event.GUEST_ENDED},
    Effect.DESTROY_STALE_GUEST: {Event.STALE_GUEST_GONE, Event.STALE_GUEST_STANDS},
    Effect.TAKE_LAST: {Event.LAST_COMMITTED, Event.SESSION_LOST, Event.GUEST_ENDED, Event.ANOTHER_OWNS},
    Effect.HAND_OVER: {Event.TAKEN_OVER, Event.DECLINED, Event.SESSION_LOST},
    Effect.ASK_OUTCOME: {
        Event.TAKEN_OVER,
        Event.DECLINED,
        Event.HANDED_BACK,
        Event.SOLE_OWNER,
        Event.ANOTHER_OWNS,
        Event.OUTCOME_UNKNOWN,
    },
    Effect.DESTROY_HANDED: {Event.GUEST_GONE, Event.GUEST_STANDS},
}
"""What the last effect of a row may come to. The others are followed by another effect, or by nothing."""


def test_whatever_an_effect_comes_to_has_a_row() -> None:
    missing = {
        (row.then.value, outcome.name)
        for row in TABLE.rows
        if row.effects
        for outcome in OUTCOMES.get(row.effects[-1], ())
        if not TABLE.accepts(row.then, outcome)
    }
    assert not missing
