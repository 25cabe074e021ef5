"""Verdicts of a drill: each guarantee has what makes it kept, violated, and not looked at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from drill import verdicts
from drill.record import Look, Question, Run
from drill_story import plan

NAMES = ("G1", "G2", "G3", "G4", "G5", "G6")


def run(fault: str = "agent_kill", **more: Any) -> Run:
    """Nothing was seen; the fault is there from 10 to 20."""
    phases = {"before": 0.0, "breaking": 9.5, "broken": 10.0, "mending": 20.0, "mended": 20.5, "end": 40.0}
    return Run(plan(fault=fault), {}, phases, {}, **more)


def looks(host: str, *states: tuple[float, str | None, int], role: str = "", reached: bool = True) -> list[Look]:
    """(moment, state, acknowledged epoch) of one host; without a role the one that the state is of."""
    found = []
    for at, state, acked in states:
        one = role or ("backup" if state in ("ready", "receiving", "orphaned", "stale") else "primary")
        found.append(Look(host, at, at + 0.1, reached, state, one if state else None, "s", acked))
    return found


def every(
    host: str, begin: float, end: float, state: str | None, acked: int = 5, step: float = 0.5, **more: Any
) -> list[Look]:
    """A look every half second."""
    moments = [begin + step * number for number in range(int((end - begin) / step))]
    return looks(host, *((at, state, acked) for at in moments), **more)


def asked(*times: tuple[float, float | None], first: int = 1) -> list[Question]:
    """(asked, answered) with numbers and values from first on."""
    return [Question(first + n, sent, at, None if at is None else first + n) for n, (sent, at) in enumerate(times)]


def ordered(*parts: list[Look]) -> list[Look]:
    """Looks at several hosts, in time."""
    return sorted((look for part in parts for look in part), key=lambda look: look.asked)


def verdict(of: Run, name: str) -> str:
    """Of one guarantee."""
    return {one.name: one.verdict for one in verdicts.judge(of)}[name]


def silent(questions: list[Question]) -> Run:
    """Alpha is silent from 10 to 20, and beta has nothing."""
    held = ordered(every("alpha", 10, 20, "silent"), every("beta", 0, 40, "receiving"))
    return run(looks=held, questions=questions)


def moved(questions: list[Question], **more: Any) -> Run:
    """Beta takes the guest over at 15, alpha is back as its backup at 25."""
    seen = ordered(
        every("alpha", 0, 10, "protected"),
        every("alpha", 10, 25, None, reached=False),
        every("alpha", 25, 40, "ready"),
        every("beta", 0, 12, "ready"),
        every("beta", 12, 15, "orphaned"),
        every("beta", 15, 26, "active"),
        every("beta", 26, 40, "protected"),
    )
    return run("host_power_loss", looks=seen, questions=questions, **more)


def without_agent(questions: list[Question]) -> Run:
    """Alpha's agent is away from 10 to 14."""
    seen = ordered(every("alpha", 10, 14, None), every("alpha", 14, 40, "protected"), every("beta", 0, 40, "ready"))
    return run(looks=seen, questions=questions)


CASES: dict[tuple[str, str], Run] = {
    ("G1", "kept"): silent(asked((12.0, 21.0), (13.0, 21.0))),
    ("G1", "violated"): silent(asked((12.0, 21.0), (13.0, 13.2))),
    ("G1", "not looked at"): silent(asked((5.0, 5.1), (25.0, 25.1))),
    ("G2", "kept"): moved(asked((5.0, 5.1), (16.0, 16.1), (26.0, 26.1))),
    ("G2", "violated"): moved([*asked((5.0, 5.1), (6.0, 6.1)), Question(3, 16.0, 16.1, 2)]),
    ("G2", "not looked at"): run(questions=asked((5.0, 5.1))),
    ("G3", "kept"): moved([]),
    ("G3", "violated"): run(looks=ordered(every("alpha", 10, 20, "solo"), every("beta", 15, 20, "active"))),
    ("G3", "not looked at"): run("slow_link", looks=ordered(every("alpha", 0, 40, "protected"), every("beta", 0, 40, "ready"))),
    ("G4", "kept"): without_agent(asked((11.0, 16.0), (22.0, 22.1))),
    ("G4", "violated"): without_agent(asked((11.0, 11.2), (22.0, 22.1))),
    ("G4", "not looked at"): moved(asked((16.0, 16.1))),
    ("G5", "kept"): silent(asked((12.0, 21.0), (30.0, 30.1))),
    ("G5", "violated"): run(looks=every("alpha", 10, 20, None, reached=False), questions=asked((12.0, None))),
    ("G5", "not looked at"): run(
        looks=ordered(every("alpha", 0, 40, "protected"), every("beta", 0, 40, "ready")), questions=asked((30.0, 30.1))
    ),
    ("G6", "kept"): moved([], kept="a", checked="a"),
    ("G6", "violated"): moved([], kept="a", checked="b"),
    ("G6", "not looked at"): run(kept="a", checked="a"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "wanted"), CASES, ids=str)
def test_each_verdict_of_each_guarantee(name: str, wanted: str) -> None:
    assert verdict(CASES[name, wanted], name) == wanted


def test_every_guarantee_can_be_violated() -> None:
    assert {name for name, wanted in CASES if wanted == "violated"} == set(NAMES) == set(verdicts.TITLES)


def test_nothing_seen_is_nothing_claimed() -> None:
    assert [one.verdict for one in verdicts.judge(run())] == ["not looked at"] * 4 + ["not looked at"] * 2
    assert all(one.evidence.endswith(".") for one in verdicts.judge(run()))


def test_what_was_answered_before_the_window_or_by_another_host_is_no_breach() -> None:
    assert verdict(silent(asked((9.0, 12.0), (12.0, 21.0))), "G1") == "kept"
    both = ordered(every("alpha", 10, 20, "silent"), every("beta", 10, 20, "active"))
    assert verdict(run(looks=both, questions=asked((12.0, 12.1))), "G1") == "not looked at"
    unseen = ordered(every("alpha", 10, 20, "silent"), every("beta", 10, 20, None, reached=False))
    assert verdict(run(looks=unseen, questions=asked((12.0, 12.1))), "G1") == "not looked at"


def test_a_backup_that_the_drill_took_away_let_nothing_out() -> None:
    seen = ordered(every("alpha", 10, 20, "silent"), every("beta", 10, 20, None, reached=False))
    taken = run("host_panic", looks=seen, questions=asked((12.0, 21.0)))
    assert verdict(taken, "G1") == "not looked at"
    taken.plan["side"] = "backup"
    assert verdict(taken, "G1") == "kept"
    taken.questions = asked((12.0, 13.0))
    assert verdict(taken, "G1") == "violated"


def taken_over_while(state: str | None) -> Run:
    """Alpha goes on like that, reached, until 18; beta takes the guest over between its looks of 14.5 and 15."""
    seen = ordered(
        every("alpha", 10, 18, state),
        every("alpha", 18, 40, "stood-down"),
        every("beta", 0, 15, "ready"),
        every("beta", 15, 40, "active"),
    )
    return run("agent_freeze", looks=seen, questions=asked((12.0, 15.3), (16.0, 16.1)))


def test_a_takeover_ends_what_can_be_judged_of_the_host_before_and_not_all_of_it() -> None:
    assert verdict(taken_over_while("silent"), "G1") == "kept"
    assert verdict(taken_over_while(None), "G4") == "kept"
    early = taken_over_while("silent")
    early.questions = asked((12.0, 14.2), (16.0, 16.1))
    assert verdict(early, "G1") == "violated"


def test_what_a_copy_answers_between_two_looks_at_it_is_no_breach() -> None:
    """The old owner stands down before anybody has looked at the new one again."""
    old = [*every("alpha", 10, 15, "silent"), *looks("alpha", (14.9, "silent", 5))]
    new = [*every("beta", 0, 15, "ready"), *looks("beta", (15.2, "active", 5))]
    assert verdict(run(looks=ordered(old, new), questions=asked((13.0, 14.8))), "G1") == "kept"
    assert verdict(run(looks=ordered(old, new), questions=asked((13.0, 14.4))), "G1") == "violated"


def test_an_owner_that_has_given_the_guest_up_does_not_run_it() -> None:
    for state, said in (("discarded", "kept"), ("unprotected", "violated")):
        there = [replace(look, role="none") for look in every("alpha", 15, 20, state)]
        assert verdict(run(looks=ordered(there, every("beta", 15, 20, "solo"))), "G3") == said


def test_an_acknowledgement_between_two_looks_ends_the_window() -> None:
    seen = ordered(looks("alpha", (10, "protected", 5), (13, "protected", 6)), every("beta", 0, 40, "ready"))
    assert verdict(run(looks=seen, questions=asked((11.0, 11.1))), "G1") == "not looked at"


def test_a_failed_probe_is_no_answer() -> None:
    question = Question(1, 12.0, 12.1, None, good=False)
    assert verdict(silent([question]), "G1") == "kept"


def test_a_former_owner_that_has_not_noticed_is_no_move() -> None:
    seen = ordered(
        every("alpha", 0, 20, "protected"),
        every("alpha", 20, 30, "stood-down"),
        every("beta", 0, 15, "ready"),
        every("beta", 15, 40, "active"),
    )
    assert [(one.source, one.target) for one in verdicts.moves(run(looks=seen))] == [("alpha", "beta")]
    back = [*seen, *every("alpha", 30, 40, "active")]
    assert [one.target for one in verdicts.moves(run(looks=ordered(back)))] == ["beta", "alpha"]


def test_a_final_number_below_what_was_told_is_a_loss() -> None:
    assert verdict(moved(asked((5.0, 5.1), (16.0, 16.1)), final_value=1), "G2") == "violated"
    assert verdict(moved(asked((5.0, 5.1), (16.0, 16.1)), final_value=2), "G2") == "kept"


def test_an_answer_that_cannot_be_one_is_damage() -> None:
    assert verdict(run(damaged=[(12.0, "question 3 was answered with b'x'")]), "G6") == "violated"


def test_a_guest_that_is_never_heard_again_was_left_suspended_unless_its_agent_says_that_it_runs() -> None:
    gone = run(
        looks=ordered(every("alpha", 10, 40, None), every("beta", 0, 40, "ready")),
        questions=asked((5.0, 5.1), (11.0, None)),
    )
    assert verdict(gone, "G4") == "violated"
    assert verdict(without_agent(asked((5.0, 5.1), (11.0, None))), "G4") == "not looked at"


def test_a_guest_that_is_held_at_the_end_is_not_claimed_to_be_lost() -> None:
    assert verdict(silent(asked((12.0, None))), "G5") == "not looked at"
