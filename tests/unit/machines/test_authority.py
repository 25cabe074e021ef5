"""The table of authority as a whole: whatever the record says, no role gets what it must not have."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remus_agent.machines.authority import RULES, Ownership, Rule, Stake, Verdict, Want, session_generation

HOSTS = st.sampled_from(["alpha", "beta", "gamma"])


def record(owner: str, generation: int, backup: str | None) -> Ownership:
    """One that its owner changed last."""
    if backup in (None, owner):
        return Ownership(owner, generation, "solo", None, "web1", "", owner)
    return Ownership(owner, generation, "protected", backup, "web1", "", owner)


RECORDS = st.one_of(st.none(), st.builds(record, HOSTS, st.integers(1, 5), st.one_of(st.none(), HOSTS)))


def stake(want: Want, generation: int) -> Stake:
    return Stake(want, "alpha", "web1", generation, "beta", "test")


@given(st.sampled_from(list(Want)), st.integers(0, 5), RECORDS)
def test_every_record_has_a_rule_and_every_change_raises_the_generation_by_one(
    want: Want, generation: int, record: Ownership | None
) -> None:
    rule = stake(want, generation).decide(record)
    change = stake(want, generation).change(rule.verdict, record)
    if change is not None:
        assert change.owner == ("beta" if rule.verdict is Verdict.GIVE_BACK else "alpha")
        assert change.changed_by == "alpha"
        lost = generation + 1 if want is Want.GIVE else max(1, generation)
        assert change.generation == (record.generation + 1 if record is not None else lost)
        taken_from_another = record is not None and record.owner != "alpha"
        assert not taken_from_another or rule.verdict is Verdict.BECOME_OWNER


@given(st.integers(1, 5), RECORDS)
def test_only_the_copy_that_the_record_names_is_taken(generation: int, record: Ownership | None) -> None:
    rule = stake(Want.TAKE, generation).decide(record)
    if rule.verdict is Verdict.BECOME_OWNER:
        assert record is not None
        assert (record.state, record.backup, record.generation) == ("protected", "alpha", generation)


@given(RECORDS)
def test_nobody_runs_on_alone_without_a_change_of_its_own(record: Ownership | None) -> None:
    assert stake(Want.ALONE, 0).decide(record).verdict is not Verdict.GO


@given(st.sampled_from([Want.ALONE, Want.OPEN, Want.RELEASE, Want.RESUME, Want.REGISTER]), st.integers(2, 5))
def test_a_record_that_is_lost_lets_nobody_speak_alone(want: Want, generation: int) -> None:
    lost = replace(stake(want, generation), copied=True)
    verdict = lost.decide(None).verdict
    assert verdict is (Verdict.PROTECT if want is Want.REGISTER else Verdict.WAIT)
    made = lost.change(verdict, None)
    if made is not None:  # the session goes on under what it asks for
        again = lost.decide(made)
        assert (made.generation, made.backup, again.verdict) == (generation, "beta", Verdict.GO)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.want.name}-{rule.reading.name}")
def test_every_rule_says_why(rule: Rule) -> None:
    assert rule.comment.endswith(".")


def test_a_named_copy_keeps_its_generation_and_a_new_one_gets_the_next() -> None:
    assert session_generation(Ownership("alpha", 4, "protected", "beta", "", "", "")) == 4
    assert session_generation(Ownership("alpha", 4, "solo", None, "", "", "")) == 5
