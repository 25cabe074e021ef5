"""The checker of traces: stories that the protocol allows, and one with each kind of violation."""

from __future__ import annotations

import pytest

from tests.formal.trace import Action, Event, TraceRejectedError, check

PROTECTED = """
alpha SESSION 2
alpha BARRIER 2 1
beta COMMIT 2 1
alpha PROTECT 2
alpha RELEASE 2 1
alpha BARRIER 2 2
beta COMMIT 2 2
alpha RELEASE 2 2
"""
BESIDE = "alpha SESSION 2\nalpha BARRIER 2 1\nbeta COMMIT 2 1\nalpha RELEASE 2 1\n"
"""Nobody has changed the record yet."""
TAKEN = PROTECTED + "beta TAKE 3\nbeta ACTIVATE 3\nbeta ALONE\nbeta OPEN 3\n"
BACK = "alpha STAND_DOWN 3\nbeta SESSION 4\nbeta BARRIER 4 1\nalpha COMMIT 4 1\nbeta PROTECT 4\nbeta RELEASE 4 1\n"
ALONE = PROTECTED + "alpha SOLO 3\nalpha ALONE\nalpha OPEN 3\n"

GOOD = {
    "protected": PROTECTED,
    "many epochs": PROTECTED
    + "".join(f"alpha BARRIER 2 {n}\nbeta COMMIT 2 {n}\nalpha RELEASE 2 {n}\n" for n in range(3, 300)),
    "the host of the primary dies": PROTECTED
    + "alpha HOST_CRASH\nbeta TAKE 3\nbeta ACTIVATE 3\nbeta ALONE\nbeta OPEN 3\n",
    "partition, the backup wins, and protects the guest with the old primary": TAKEN + BACK,
    "and back again": TAKEN + BACK + "alpha TAKE 5\nalpha ACTIVATE 5\nalpha ALONE\nalpha OPEN 5\nbeta STAND_DOWN 5\n",
    "the backup dies, the primary goes on alone, and is protected again": ALONE
    + "beta HOST_CRASH\nalpha SESSION 4\nalpha BARRIER 4 1\nbeta COMMIT 4 1\nalpha PROTECT 4\nalpha RELEASE 4 1\n",
    "a session is lost and opened again": PROTECTED
    + "alpha SESSION 2\nalpha BARRIER 2 1\nbeta COMMIT 2 1\nalpha RELEASE 2 1\n",
    "an acknowledgement is lost": PROTECTED + "alpha BARRIER 2 3\nbeta COMMIT 2 3\nbeta TAKE 3\nbeta ACTIVATE 3\n",
    "a frozen primary lets out late what was committed": PROTECTED
    + "alpha BARRIER 2 3\nbeta COMMIT 2 3\nbeta TAKE 3\nbeta ACTIVATE 3\nbeta ALONE\nbeta OPEN 3\n"
    "alpha RELEASE 2 3\nalpha STAND_DOWN 3\n",
    "an agent dies while alone": ALONE + "alpha AGENT_CRASH\nalpha SESSION 4\nalpha BARRIER 4 1\n",
    "the next agent opens what was to be opened": PROTECTED
    + "alpha SOLO 3\nalpha ALONE\nalpha AGENT_CRASH\nalpha OPEN 3\n",
    "the witness is slow, and epochs go on": BESIDE
    + "alpha BARRIER 2 2\nbeta COMMIT 2 2\nalpha RELEASE 2 2\nalpha PROTECT 2\n",
    "naming the backup is given up on, and another session begins": BESIDE
    + "alpha SESSION 2\nalpha BARRIER 2 1\nbeta COMMIT 2 1\nalpha RELEASE 2 1\nalpha PROTECT 2\n",
    "what was given up on comes late": BESIDE + "alpha SESSION 2\nalpha PROTECT 2\nalpha BARRIER 2 1\nbeta TAKE 3\n",
    "the session ends before the record was asked": BESIDE + "alpha SOLO 2\nalpha ALONE\nalpha OPEN 2\n",
    "going solo is given up on, and it comes late": PROTECTED
    + "alpha SESSION 2\nalpha BARRIER 2 1\nalpha SOLO 3\nbeta COMMIT 2 1\nalpha RELEASE 2 1\n"
    "alpha SOLO 4\nalpha ALONE\nalpha OPEN 4\n",
    "the toolstack loses the copy of a new owner": PROTECTED
    + "beta TAKE 3\nbeta GIVE 4\nalpha SOLO 5\nalpha ALONE\nalpha OPEN 5\n",
    "a guest is handed back": PROTECTED
    + "beta TAKE 3\nalpha STAND_DOWN 3\nbeta AGENT_CRASH\nbeta GIVE 4\nalpha RESUME 4\nalpha SOLO 5\nalpha ALONE\nalpha OPEN 5\n",
}

BAD = {
    "released before the commit": ("alpha SESSION 2\nalpha BARRIER 2 1\n", "alpha RELEASE 2 1"),
    "named after output was opened without a change": (BESIDE + "alpha ALONE\nalpha OPEN 1\n", "alpha PROTECT 2"),
    "opened while it is not known whether the backup is named": (
        BESIDE + "alpha SESSION 2\nalpha PROTECT 2\n",
        "alpha OPEN 2",
    ),
    "released in another generation": (PROTECTED + "alpha BARRIER 2 3\nbeta COMMIT 2 3\n", "alpha RELEASE 3 3"),
    "released twice": (PROTECTED, "alpha RELEASE 2 2"),
    "released after standing down": (
        PROTECTED + "alpha BARRIER 2 3\nbeta COMMIT 2 3\nbeta TAKE 3\nalpha STAND_DOWN 3\n",
        "alpha RELEASE 2 3",
    ),
    "a barrier before the release": (PROTECTED + "alpha BARRIER 2 3\n", "alpha BARRIER 2 4"),
    "an epoch that was never sent is committed": (PROTECTED, "beta COMMIT 2 3"),
    "opened while protected": (PROTECTED, "alpha OPEN 2"),
    "noted as alone while protected": (PROTECTED, "alpha ALONE"),
    "opened before it is noted": (PROTECTED + "alpha SOLO 3\n", "alpha OPEN 3"),
    "solo after the other took over": (PROTECTED + "beta TAKE 3\n", "alpha SOLO 3"),
    "opened after the other took over": (TAKEN, "alpha OPEN 3"),
    "taken over while solo": (ALONE, "beta TAKE 4"),
    "taken over before the record says protected": (
        "alpha SESSION 2\nalpha BARRIER 2 1\nbeta COMMIT 2 1\n",
        "beta TAKE 2",
    ),
    "taken over twice": (PROTECTED + "beta TAKE 3\nbeta ACTIVATE 3\n", "beta TAKE 4"),
    "a copy of an older generation": (
        ALONE + "alpha SESSION 4\nalpha BARRIER 4 1\n",
        "beta TAKE 4",
    ),
    "activated without the record": (PROTECTED, "beta ACTIVATE 3"),
    "activated after the agent, and the copy, were gone": (
        PROTECTED + "beta TAKE 3\nbeta AGENT_CRASH\n",
        "beta ACTIVATE 3",
    ),
    "given back after it ran here": (TAKEN + "beta HOST_CRASH\n", "beta GIVE 4"),
    "opened by an agent that has only read": (
        "alpha SESSION 2\nalpha BARRIER 2 1\nbeta COMMIT 2 1\nalpha AGENT_CRASH\n",
        "alpha OPEN 1",
    ),
    "a session of a generation that is gone": (TAKEN, "alpha SESSION 2"),
}


def events(text: str) -> list[Event]:
    """host ACTION generation epoch, one a line."""
    found = []
    for line in text.split("\n"):
        if line:
            host, action, *numbers = line.split()
            found.append(Event(host, Action[action], *map(int, numbers)))
    return found


@pytest.mark.parametrize("name", GOOD)
def test_a_story_that_the_protocol_allows(name: str) -> None:
    check(events(GOOD[name]), owner="alpha", backup="beta")


@pytest.mark.parametrize("name", BAD)
def test_a_violation_is_found_where_it_is(name: str) -> None:
    before, wrong = BAD[name]
    check(events(before), owner="alpha", backup="beta")
    trace = events(f"{before}{wrong}\n")
    with pytest.raises(TraceRejectedError) as caught:
        check(trace, owner="alpha", backup="beta")
    assert caught.value.index == len(trace) - 1


def test_nothing_after_an_impossible_event_makes_it_possible() -> None:
    with pytest.raises(TraceRejectedError, match="beta ACTIVATE") as caught:
        check(events("beta ACTIVATE 2\n" + PROTECTED), owner="alpha", backup="beta")
    assert caught.value.index == 0


def test_an_empty_trace_is_possible() -> None:
    check([], owner="alpha", backup="beta")
