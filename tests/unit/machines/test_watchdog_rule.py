"""When the watchdog is armed: every state of a protection is said of, and every case of the decision."""

from __future__ import annotations

import pytest

from remus_agent.machines.primary import ALONE, HELD, NOT_OURS, TERMINAL, State
from remus_agent.machines.watchdog import AUTHORITY, Act, decide

ARMED = {
    "protected", "silent", "reconnecting", "reseeding", "switching", "going-solo", "stopping", "retiring",
}  # fmt: skip


@pytest.mark.parametrize("state", State)
def test_authority_in_every_state(state: State) -> None:
    assert AUTHORITY[state] is (state.value in ARMED)


def test_authority_fits_the_other_groups_of_states() -> None:
    over = {state for state in State if AUTHORITY[state]}
    assert not over & ALONE, "nobody may take over what the record gives to this host alone"
    assert not over & (NOT_OURS | TERMINAL)
    assert set(HELD) - over - ALONE == {State.RETURNING, State.IN_DOUBT}, "the guest does not run here"


@pytest.mark.parametrize(
    ("authority", "armed", "age", "act"),
    [
        (False, False, 0.0, Act.REST),
        (False, False, 900.0, Act.REST),
        (False, True, 0.0, Act.DISARM),
        (False, True, 900.0, Act.DISARM),
        (True, False, 0.0, Act.ARM),
        (True, False, 900.0, Act.ARM),
        (True, True, 0.0, Act.REST),
        (True, True, 59.9, Act.REST),
        (True, True, 60.0, Act.PET),
        (True, True, 900.0, Act.PET),
    ],
)
def test_what_is_done(authority: bool, armed: bool, age: float, act: Act) -> None:
    assert decide(authority=authority, armed=armed, age=age, seconds=180) is act
