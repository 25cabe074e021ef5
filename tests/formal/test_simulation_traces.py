"""What the code does in the simulation is something that the model of authority can do; with a fault seeded into it, it is not.

The seeds are those of `tests/model/plans.py`; `python -m tests.model.traces --seeds 0:1000` takes more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from remus_agent.faults import VARIABLE, FaultName
from tests.formal.trace import Action
from tests.model.plans import KINDS, PAUSE, Fault, Plan, moved_plan_of, plan_of, starting_plan_of
from tests.model.test_giving_back import PLANS
from tests.model.traces import NOT_MODELLED, first_rejection, modelled, rejection, trace_of

GIVEN_BACK = PLANS[FaultName.DESTROY_AT_ONCE]
"""A takeover whose copy is lost: no seed of these makes one in which the paused guest goes on."""
FORGETFUL = Plan(
    seed=1,
    rates=(1.0, 1.0),
    faults=(
        Fault(at=2.0, kind="kill-agent", host="alpha", seconds=12.0),
        Fault(at=8.4, kind="witness-down", host="alpha", seconds=14.0),
        Fault(at=8.5, kind="power-off", host="beta", seconds=1.0),
    ),
)
"""A new owner that goes down with the guest, and knows of nothing when it is back."""
FOUND_WITHIN = 1000

SEEN: dict[FaultName, tuple[Callable[[int], Plan], int, Action]] = {
    FaultName.ACK_WAIT_REMOVED: (plan_of, 0, Action.RELEASE),
    FaultName.CAS_WITHOUT_COMPARE: (plan_of, 67, Action.TAKE),
    FaultName.SOLO_WITHOUT_CAS: (plan_of, 0, Action.OPEN),
    FaultName.SESSION_UNASKED: (lambda _: FORGETFUL, 1, Action.SESSION),
    FaultName.RESTART_OPENS_OUTPUT: (plan_of, 5, Action.OPEN),
    FaultName.RUNS_UNNOTED: (plan_of, 73, Action.GIVE),
    FaultName.DESTROY_AT_ONCE: (plan_of, 1, Action.SESSION),
    FaultName.SWITCHOVER_RESUMES: (moved_plan_of, 2, Action.SESSION),
}
"""Each with the seed that found it last, and what the model cannot do. Should a change of the code give that seed another course,
others are tried."""

UNSEEN = {
    FaultName.GENERATION_UNCHECKED: "what comes too late is covered by a commit: the model lets a frozen host do it",
    FaultName.WALL_CLOCK: "in the model a backup may suspect at any moment",
    FaultName.OLDER_COPY_KEPT: "a trace does not say which of two copies of one generation is activated",
    FaultName.OVERRIDE_UNRECORDED: "an operator's override is not compared",
    FaultName.LOSS_UNNOTICED: "in the model the witness forgets nothing",
    FaultName.WORD_NEVER_OLD: "an operator's word is not compared",
    FaultName.FENCE_NOT_AWAITED: "fencing is not in the model",
    FaultName.HOLD_IPV4_ONLY: "a plug is one thing in the model",
    FaultName.FEED_BEFORE_COMMIT: "the content of memory is not in the model",
    FaultName.DIGEST_UNCHECKED: "the content of memory is not in the model",
    FaultName.DISK_APPLY_ON_RECEIPT: "disks are not in the model",
    FaultName.DISK_ACK_IGNORED: "disks are not in the model",
    FaultName.DEVICES_UNCOMPARED: "what a guest consists of is not in the model",
    FaultName.MEMBERS_APART: "a group is one guest in the model",
    FaultName.NOBODY_RESUMES: "in the model a guest is never suspended",
    FaultName.ERROR_LEAVES_SUSPENDED: "in the model a guest is never suspended",
}
"""Faults that a trace does not show, and why."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of failures are provoked; each would be logged."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, 60, 10))
def test_the_model_can_do_what_the_code_does(first: int) -> None:
    refused = first_rejection(range(first, first + 10))
    assert refused is None, refused


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, 30, 10))
def test_the_model_can_do_what_a_switchover_does(first: int) -> None:
    refused = first_rejection(range(first, first + 10), moved_plan_of)
    assert refused is None, refused


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, 30, 10))
def test_the_model_can_do_what_a_killed_new_owner_and_its_next_agent_do(first: int) -> None:
    refused = first_rejection(range(first, first + 10), starting_plan_of)
    assert refused is None, refused


def test_the_model_can_give_a_guest_back_as_the_code_does() -> None:
    refused = rejection(GIVEN_BACK)
    assert refused is None, refused


def test_every_action_is_compared() -> None:
    """None of the seeds above is for nothing."""
    seen = {event.action for seed in range(20) for event in trace_of(modelled(plan_of(seed)))}
    seen |= {event.action for event in trace_of(GIVEN_BACK)}
    assert seen == set(Action)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", SEEN, ids=lambda fault: fault.value)
def test_the_model_cannot_do_what_a_seeded_fault_does(fault: FaultName, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, seed, action = SEEN[fault]
    assert rejection(draw(seed)) is None
    monkeypatch.setenv(VARIABLE, fault.value)
    refused = rejection(draw(seed))
    if refused is not None and refused.event.action is action:
        return
    report = first_rejection(range(FOUND_WITHIN), draw)
    assert report is not None, f"{fault.value} was not found in {FOUND_WITHIN} seeds"


def test_every_seeded_fault_is_either_seen_or_not() -> None:
    assert set(SEEN) | set(UNSEEN) == set(FaultName)
    assert not set(SEEN) & set(UNSEEN)


def test_what_the_model_does_not_know_is_left_out_of_a_plan() -> None:
    assert set(NOT_MODELLED) < {*KINDS, PAUSE}
    word = Fault(at=1.0, kind="override", host="alpha", seconds=1.0)
    cut = Fault(at=1.0, kind="cut", host="alpha", seconds=1.0, paths=("channel",))
    plan = Plan(seed=1, rates=(1.0, 1.0), faults=(word, cut))
    assert modelled(plan).faults == (cut,)
