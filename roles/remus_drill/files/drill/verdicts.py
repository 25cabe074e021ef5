"""What a drill shows of each guarantee (docs/safety.md): kept, violated, or not looked at. Pure functions of a Run.

Nothing is claimed that was not observed: what could not have been seen to break counts as not looked at. Who looks is a client of
the guest and both agents' own words, all in the controller's time; nobody looks at the wire or at all of the guest's memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from drill.record import Look, Question, Run

KEPT, VIOLATED, NOT_LOOKED_AT = "kept", "violated", "not looked at"
TITLES = {
    "G1": "No output leaves before its epoch is acknowledged",
    "G2": "The backup activates only whole, committed epochs",
    "G3": "At most one host runs the guest with its output open",
    "G4": "An agent's death opens no output and leaves no guest suspended",
    "G5": "The guest outlives its protection",
    "G6": "No silent damage",
}
HELD = ("protected", "silent")
"""States of a primary in which nothing leaves that is not acknowledged."""
OPEN = ("active", "solo", "unprotected")
"""States in which a guest's output flows by itself."""
RUNS = ("connecting", "seeding", "protected", "silent", "solo", "active")
CONTEST = ("agent_kill", "agent_freeze", "link_cut", "one_way_cut", "host_freeze", "host_panic", "host_power_loss")
"""Faults after which two hosts could each believe that the guest is theirs."""
TAKES_THE_HOST = ("host_freeze", "host_panic", "host_power_loss")
LEAST_HELD = 1.0
"""Seconds without an acknowledgement from which on it counts that nothing was answered."""


@dataclass(frozen=True)
class Verdict:
    """One guarantee. evidence: one sentence or two."""

    name: str
    verdict: str
    evidence: str

    @property
    def title(self) -> str:
        """The guarantee in a few words."""
        return TITLES[self.name]


@dataclass(frozen=True)
class Window:
    """A time in which something certainly was so."""

    begin: float
    end: float
    host: str
    words: str = ""

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.begin


@dataclass(frozen=True)
class Move:
    """The guest runs on another host than before, first seen at `at`."""

    at: float
    source: str
    target: str


def judge(run: Run) -> list[Verdict]:
    """Every guarantee, in order."""
    return [_g1(run), _g2(run), _g3(run), _g4(run), _g5(run), _g6(run)]


def moves(run: Run) -> list[Move]:
    """Changes of the host that runs the guest, as the agents say. A former owner that has not noticed yet is none."""
    owner, found = run.plan["owner"], []
    former: set[str] = set()
    for look in run.looks:
        claims = look.role == "primary" and look.state in RUNS
        if not claims and look.state is not None:
            former.discard(look.host)
        elif claims and look.host != owner and look.host not in former:
            found.append(Move(look.answered, owner, look.host))
            former.add(owner)
            owner = look.host
    return found


def unacknowledged(run: Run) -> list[Window]:
    """Times in which the guest ran on one host, nothing that it did was acknowledged, and no other host had it.

    An agent counts an epoch as acknowledged in the step in which it lets its output go, so what was asked and answered between
    two looks with the same epoch was let go without one."""
    found = []
    for host in run.hosts:
        first: Look | None = None
        newest: Look | None = None
        for look in run.of(host):
            same = first is not None and (look.session, look.acked) == (first.session, first.acked)
            held = look.role == "primary" and look.state in HELD
            if first is not None and newest is not None and not (held and same):
                found.append(Window(first.answered, newest.asked, host, f"epoch {first.acked}"))
                first = None
            if held:
                first = look if first is None else first
                newest = look
        if first is not None and newest is not None:
            found.append(Window(first.answered, newest.asked, host, f"epoch {first.acked}"))
    return _alone(run, found)


def _alone(run: Run, windows: list[Window]) -> list[Window]:
    """Of each window the first part, in which no other host could have let anything out: by its own word, or because the drill
    had taken it away. A takeover ends it at the last look before."""
    found = []
    for window in (one for one in windows if one.seconds > 0):
        end = window.end
        for host in run.hosts:
            if host != window.host:
                end = min(end, _quiet(run, host, window))
        if end > window.begin:
            found.append(Window(window.begin, end, window.host, window.words))
    return found


def _quiet(run: Run, host: str, window: Window) -> float:
    """Until when a host certainly had nothing of the guest, from the beginning of a window on."""
    taken = host != run.plan["owner"] and run.plan["side"] == "backup" and run.plan["fault"] in TAKES_THE_HOST
    until = window.begin
    for look in run.of(host):
        if look.answered < window.begin:
            continue
        if until >= window.end:
            break
        if look.role == "primary" or not (look.reached or taken):
            break
        until = look.asked
    return until


def without_agent(run: Run) -> list[Window]:
    """Times in which the owner's host answered and its agent did not."""
    found = []
    run_of: list[Look] = []
    for look in [*run.of(run.plan["owner"]), None]:
        if look is not None and look.reached and look.state is None and look.asked >= run.phases.get("breaking", 0.0):
            run_of.append(look)
            continue
        if len(run_of) > 1:
            found.append(Window(run_of[0].answered, run_of[-1].asked, run.plan["owner"], run_of[0].error))
        run_of = []
    return _alone(run, found)


def early(questions: Iterable[Question], windows: list[Window]) -> tuple[list[tuple[Question, Window]], int]:
    """(questions asked and answered within one window, number of those asked within one and not answered before its end)."""
    out, held = [], 0
    for question in questions:
        for window in windows:
            if window.begin < question.sent < window.end:
                if question.answered is not None and question.good and question.answered < window.end:
                    out.append((question, window))
                else:
                    held += 1
    return out, held


def _g1(run: Run) -> Verdict:
    windows = unacknowledged(run)
    out, _ = early(run.questions, windows)
    if out:
        question, window = out[0]
        return Verdict(
            "G1",
            VIOLATED,
            f"Question {question.number} was asked and answered while {window.host} had no acknowledgement after "
            f"{window.words}, {_at(run, question.sent)}; so were {len(out) - 1} others.",
        )
    broken = run.phases.get("breaking", run.end)
    long = [one for one in windows if one.seconds >= LEAST_HELD and one.end > broken]
    _, held = early(run.questions, long)
    if not held:
        return Verdict(
            "G1",
            NOT_LOOKED_AT,
            "Nobody saw a second or more without acknowledgements in which the client asked something.",
        )
    total = sum(one.seconds for one in long)
    return Verdict(
        "G1",
        KEPT,
        f"{held} questions were asked in {total:.1f} s without an acknowledgement; none was answered in that time.",
    )


def _g2(run: Run) -> Verdict:
    told = [(one.number, one.value, one.answered or 0.0) for one in run.answered if one.value is not None]
    highest = None
    for number, value, at in told:
        if highest is not None and value <= highest:
            return Verdict(
                "G2",
                VIOLATED,
                f"The guest answered question {number} with {value}, {_at(run, at)}, after it had told the client {highest}: "
                "something that was told is lost.",
            )
        highest = value
    if highest is not None and run.final_value is not None and run.final_value < highest:
        return Verdict(
            "G2", VIOLATED, f"The guest had told the client {highest}, and holds {run.final_value} at the end."
        )
    moved = moves(run)
    if not moved:
        return Verdict("G2", NOT_LOOKED_AT, "No copy was activated.")
    after = [one for one in told if one[2] > moved[-1].at]
    if not after or len(after) == len(told):
        return Verdict(
            "G2",
            NOT_LOOKED_AT,
            f"{moved[-1].target} took the guest over, but this client keeps no number that goes through both lives.",
        )
    return Verdict(
        "G2",
        KEPT,
        f"{moved[-1].target} took the guest over; {len(after)} numbers that it told since go on from the last of "
        f"{len(told) - len(after)} before, none lost or told twice.",
    )


def _g3(run: Run) -> Verdict:
    spans = {host: _spans(run.of(host)) for host in run.hosts}
    one, other = run.hosts[0], run.hosts[-1]
    for here in spans[one]:
        for there in spans[other]:
            overlap = min(here.end, there.end) - max(here.begin, there.begin)
            if one != other and overlap > 0:
                return Verdict(
                    "G3",
                    VIOLATED,
                    f"{one} said {here.words} and {other} said {there.words} for {overlap:.1f} s at the same time, "
                    f"{_at(run, max(here.begin, there.begin))}.",
                )
    moved = moves(run)
    begun = run.fault_begun
    if begun is None or not (moved or run.plan["fault"] in CONTEST):
        return Verdict("G3", NOT_LOOKED_AT, "Nothing gave the other host a reason to run the guest.")
    both = _both(run, moved[-1].at if moved else begun)
    if not both:
        return Verdict("G3", NOT_LOOKED_AT, "The two agents never answered at the same time after the fault had begun.")
    who = f"{moved[-1].target} took the guest over" if moved else f"{one} kept the guest"
    return Verdict(
        "G3",
        KEPT,
        f"{who}; in {both} looks at both agents since, never did both say that output is open. The wire was not looked at.",
    )


def _spans(looks: list[Look]) -> list[Window]:
    """Times in which a host certainly had the guest with its output open: between two looks that both say so."""
    found = []
    for before, after in itertools.pairwise(looks):
        if before.state in OPEN and after.state in OPEN and after.asked > before.answered:
            found.append(Window(before.answered, after.asked, before.host, before.state or ""))
    return found


def _both(run: Run, since: float) -> int:
    """How often both agents answered within one look's time."""
    one, other = run.hosts[0], run.hosts[-1]
    far = [look for look in run.of(other) if look.reached and look.state is not None and look.asked >= since]
    near = [look for look in run.of(one) if look.reached and look.state is not None and look.asked >= since]
    return sum(any(abs(look.asked - there.asked) < 1.0 for there in far) for look in near)


def _g4(run: Run) -> Verdict:
    if run.plan["fault"] not in ("agent_kill", "agent_freeze") or run.plan["side"] != "primary":
        return Verdict("G4", NOT_LOOKED_AT, "No agent of a primary was killed or frozen.")
    windows = without_agent(run)
    out, held = early(run.questions, windows)
    if out:
        question, window = out[0]
        return Verdict(
            "G4",
            VIOLATED,
            f"Question {question.number} was asked and answered while {window.host} had no agent, {_at(run, question.sent)}; "
            f"so were {len(out) - 1} others.",
        )
    begun = run.fault_begun or run.end
    again = [one for one in run.answered if one.sent > begun]
    if not again:
        if _runs(run) or not run.questions:
            return Verdict("G4", NOT_LOOKED_AT, "The guest has not answered since; its agent says that it runs.")
        return Verdict(
            "G4", VIOLATED, "The guest has not answered any question that was asked after its agent had ended."
        )
    if not held:
        return Verdict(
            "G4",
            NOT_LOOKED_AT,
            "The guest answers again, but no two looks missed its agent while the client asked something.",
        )
    seconds = sum(one.seconds for one in windows)
    return Verdict(
        "G4",
        KEPT,
        f"{held} questions were asked in {seconds:.1f} s without an agent, none was answered in that time; the first answer "
        f"to what was asked since came {(again[0].answered or 0) - begun:.1f} s after the fault.",
    )


def _runs(run: Run) -> bool:
    """Does the newest word of some agent say that the guest runs?"""
    newest = [looks[-1] for host in run.hosts if (looks := run.of(host))]
    return any(one.role == "primary" and one.state in RUNS for one in newest)


def _g5(run: Run) -> Verdict:
    since = run.phases.get("breaking")
    after = [one for one in run.looks if since is not None and one.asked >= since]
    interrupted = [one for one in after if one.host == run.plan["owner"] and one.state != "protected"]
    interrupted += [one for one in after if one.host != run.plan["owner"] and one.state not in ("ready", "receiving")]
    if not interrupted:
        return Verdict("G5", NOT_LOOKED_AT, "Its protection was never interrupted.")
    ended = run.fault_ended or run.end
    again = [one for one in run.answered if one.sent > interrupted[0].answered]
    late = [one for one in again if one.sent > ended]
    if late:
        return Verdict(
            "G5",
            KEPT,
            f"Protection was interrupted {_at(run, interrupted[0].answered)}; the guest answered {len(again)} questions asked "
            f"since, {len(late)} of them after the fault was undone.",
        )
    if _runs(run):
        return Verdict(
            "G5", NOT_LOOKED_AT, "An agent says that it runs, but it has not answered since the fault was undone."
        )
    return Verdict(
        "G5", VIOLATED, "No agent says that the guest runs, and it has not answered since the fault was undone."
    )


def _g6(run: Run) -> Verdict:
    if run.damaged:
        at, words = run.damaged[0]
        return Verdict("G6", VIOLATED, f"An answer can't be one to its question, {_at(run, at)}: {words}.")
    if run.kept and run.checked and run.kept != run.checked:
        return Verdict(
            "G6",
            VIOLATED,
            "What the client put into the guest's memory at the beginning is not what it read at the end.",
        )
    moved = moves(run)
    if moved and run.kept and run.checked:
        return Verdict(
            "G6",
            KEPT,
            f"64 KiB that the client put into the guest's memory at the beginning were read unchanged from {moved[-1].target}.",
        )
    return Verdict(
        "G6", NOT_LOOKED_AT, "This drill damages nothing, and no copy was activated whose content could be compared."
    )


def _at(run: Run, moment: float) -> str:
    """A moment for people."""
    return f"{moment - run.start:.1f} s after the beginning"
