"""May an old epoch be released? The witness is asked, and what it said is acted on only while it is young."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from remus_agent.adapters.sim.local import LoopClock
from remus_agent.errors import OwnershipLost, WitnessUnreachable
from remus_agent.machines.authority import Ownership, Verdict
from remus_agent.services.authority import Authority, Settled
from remus_agent.services.ownership import Witnessed
from remus_agent.services.settings import Settings
from remus_agent.store_ports import GuestRecord
from tests.model.loop import run

NUMBERS = Settings(host="alpha", detect=3.0)
MINE = Settled(Verdict.GO, Ownership("alpha", 4, "protected", "beta", "web1", "", "alpha"))
THEIRS = Settled(Verdict.STAND_DOWN, Ownership("beta", 5, "solo", None, "web1", "", "beta"))


class Slow:
    """An authority whose answers take so many seconds each. One that was frozen meanwhile sees the same."""

    host = "alpha"

    def __init__(self, *answers: tuple[float, Settled]) -> None:
        self.answers = list(answers)

    async def settle(self, guest: str, stake: object) -> Settled:
        seconds, settled = self.answers.pop(0)
        await asyncio.sleep(seconds)
        return settled


async def release(slow: Slow, ago: float) -> None:
    record = cast(GuestRecord, type("Record", (), {"uuid": "u", "name": "web1", "peer": "beta"})())
    rights = Witnessed(cast(Authority, slow), record, NUMBERS, LoopClock())
    await rights.may_release(LoopClock().now() - ago, 4)


def test_an_epoch_that_was_sent_just_now_needs_no_question() -> None:
    run(release(Slow(), 0.1))


def test_an_answer_that_comes_soon_is_enough() -> None:
    slow = Slow((0.5, MINE))
    run(release(slow, 60))
    assert not slow.answers


def test_an_old_answer_is_asked_for_again() -> None:
    slow = Slow((11.0, MINE), (0.5, MINE))
    run(release(slow, 60))
    assert not slow.answers


def test_what_the_second_answer_says_counts() -> None:
    with pytest.raises(OwnershipLost, match="beta owns the guest since generation 5"):
        run(release(Slow((11.0, MINE), (0.5, THEIRS)), 60))


def test_a_witness_whose_answers_are_always_old_cannot_permit_anything() -> None:
    answers: list[Any] = [(11.0, MINE)] * 3
    with pytest.raises(WitnessUnreachable, match="3 of its answers took longer than"):
        run(release(Slow(*answers), 60))
