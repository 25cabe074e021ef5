"""The model of authority: what holds within its bounds, and what every part of the protocol that is left out breaks.

The bounds are explained at the top of `authority.pml`. Each search is exhaustive, or stops at the first error.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.formal import spin

G1, BOTH_OPEN, BY_RECORD, TOLD = 1, 2, 4, 8
"""Bits of CHECK: what is looked for alone, so that a mutation is not found by a cause but by what it costs."""

SAFETY = {
    "two faults": ("HF=4", "GF=4", "SF=2", "BF=2", "FAULTS=2"),
    "more generations and epochs": ("HF=5", "GF=5", "SF=2", "BF=2", "FAULTS=1"),
}
LIVENESS = ("LIVE", "HF=2", "GF=3", "SF=2", "BF=1", "FAULTS=2")

MUTATIONS = {
    "the wait for the acknowledgement is removed": ("NO_ACK_WAIT", G1),
    "as above: a copy is older than what was told": ("NO_ACK_WAIT", TOLD),
    "the witness changes without comparing": ("NO_COMPARE", BOTH_OPEN),
    "as above: two histories are told": ("NO_COMPARE", TOLD),
    "solo without asking": ("SOLO_UNASKED", BOTH_OPEN),
    "as above: two histories are told, solo": ("SOLO_UNASKED", TOLD),
    "session and generation are not compared before a release": ("GENERATION_UNCHECKED", G1),
    "takeover whatever generation the copy is of": ("STALE_COPY", TOLD),
    "output is opened while the outcome of going solo is unknown": ("OPEN_WHILE_UNKNOWN", BOTH_OPEN),
    "an unchanged record is taken as a refusal": ("UNCHANGED_IS_FAILED", BOTH_OPEN),
    "an agent that starts opens output after only reading": ("RELY_ON_READING", BOTH_OPEN),
    "a backup that has just started takes a session in": ("UNREAD_BACKUP", TOLD),
    "an older copy is kept beside a newer one of its generation": ("OLDER_COPY_KEPT", TOLD),
    "an override activates what a fenced primary may have left behind": ("OVERRIDE", TOLD),
}
STUCK = {
    "an owner that lost its copy does not give the guest back": "NO_GIVING_BACK",
    "who stands down destroys its guest at once": "DESTROY_AT_ONCE",
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bounds", SAFETY.values(), ids=SAFETY.keys())
def test_nothing_unsafe_can_happen(tmp_path: Path, bounds: tuple[str, ...]) -> None:
    verdict = spin.search(spin.build(tmp_path, bounds))
    assert verdict.errors == 0, verdict.text
    assert verdict.complete, verdict.text
    assert verdict.states > 100_000, "the bounds leave hardly anything to happen"


@pytest.mark.timeout(300)
def test_when_faults_end_the_guest_is_served(tmp_path: Path) -> None:
    verdict = spin.search(spin.build(tmp_path, LIVENESS, options=()), "-a")
    assert verdict.errors == 0, verdict.text
    assert verdict.complete, verdict.text
    assert verdict.states > 100_000, "the bounds leave hardly anything to happen"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("mutation", "check"), MUTATIONS.values(), ids=MUTATIONS.keys())
def test_what_a_mutation_costs(tmp_path: Path, mutation: str, check: int) -> None:
    verdict = spin.search(spin.build(tmp_path, (mutation, f"CHECK={check}", *SAFETY["two faults"])))
    assert verdict.errors == 1, verdict.text
    assert verdict.error is not None and verdict.error.startswith("assertion violated"), verdict.text


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutation", STUCK.values(), ids=STUCK.keys())
def test_a_mutation_leaves_the_guest_nowhere(tmp_path: Path, mutation: str) -> None:
    verdict = spin.search(spin.build(tmp_path, (mutation, *LIVENESS), options=()), "-a")
    assert verdict.errors == 1, verdict.text
    assert verdict.error is not None and verdict.error.startswith("acceptance cycle"), verdict.text


def test_the_search_for_cycles_finds_one(tmp_path: Path) -> None:
    """The claim is not true of everything: nothing would have served the guest."""
    verdict = spin.search(spin.build(tmp_path, ("SERVED=false", *LIVENESS), options=()), "-a")
    assert verdict.errors == 1, verdict.text


def test_missing_tools_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(spin.SpinError, match="spin, gcc; `apt-get install spin gcc`"):
        spin.build(tmp_path)
