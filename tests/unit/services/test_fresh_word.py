"""A word is fresh by a clock that moves on between any two looks at it, as every real one does."""

from __future__ import annotations

import itertools

import pytest

from remus_agent.errors import AuthorityError
from remus_agent.services.fresh_word import FreshWord
from remus_agent.services.settings import Settings

SETTINGS = Settings(host="beta")


class MovingClock:
    """Each look is a microsecond later. later: seconds more from the next look on."""

    def __init__(self) -> None:
        self._looks = itertools.count()
        self.later = 0.0

    def now(self) -> float:
        return 1000 + next(self._looks) * 1e-6 + self.later

    def time_of_day(self) -> float:
        raise AssertionError("nothing may be decided by it")

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")


def test_a_word_of_just_now_is_acted_on() -> None:
    FreshWord(MovingClock(), SETTINGS).require("web1", "failover", "look again")


def test_also_after_a_while_in_which_the_host_was_awake() -> None:
    clock = MovingClock()
    word = FreshWord(clock, SETTINGS)
    clock.later = SETTINGS.detect / 2
    word.require("web1", "failover", "look again")


def test_not_after_a_freeze() -> None:
    clock = MovingClock()
    word = FreshWord(clock, SETTINGS)
    clock.later = SETTINGS.detect * 1.1
    with pytest.raises(AuthorityError, match="frozen meanwhile"):
        word.require("web1", "failover", "look again")
