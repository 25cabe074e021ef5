"""Output commit, fail closed and no lost reply, on the live pair, from outside: what leaves the primary's host,
and what the proof's client can see. Each guarantee also runs under a seeded fault, where it must turn red.

Takes the guest to alpha, protected to beta, and leaves it there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pair import agent, faults
from pair.beacon import KINDS, Listener, Seen, listening
from pair.guest import come_home, copies
from pair.hosts import GUEST, labctl, on
from pair.load import load
from pair.protection import (
    NOT_YET,
    SEED_TIMEOUT,
    die,
    ensure_protected,
    take_over,
    wait_protected,
)
from pair.wait import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(3600)]

SETTLE = 1.5
"""Seconds after a cut in which what was acknowledged before it may still come out."""
BLACKOUT = 6.0
"""Seconds that nothing may come out; with TCP's own retries far below the agents' silence timeout."""
ROUNDS = 6000
"""Rounds of the beacon, ten a second: more than any test here takes."""
PHASES = ("before-suspend", "suspended", "copied", "resumed", "sending", "awaiting-ack", "acked")
STEADY = 5
"""An epoch of a session in which output of earlier epochs was released already."""


@pytest.fixture(scope="module", autouse=True)
def _lab(lab: dict[str, Any]) -> None:
    """Skips with the lab's own reason when there is none."""


@pytest.fixture
def protected() -> agent.Status:
    """The guest on alpha, protected."""
    return ensure_protected()


@pytest.fixture
def home() -> Iterator[None]:
    """The guest taken back to alpha after a test that moves it."""
    yield
    come_home()


@dataclass(frozen=True)
class Blackout:
    """What was seen around a cut of the replication link."""

    before: agent.Status
    during: agent.Status
    after: agent.Status
    inside: list[Seen]
    earlier: list[Seen]
    later: list[Seen]
    report: dict[str, Any]

    def sequences(self, frames: list[Seen], kind: str) -> list[int]:
        return [frame.sequence for frame in frames if frame.kind == kind and frame.sequence is not None]


def pass_time(seconds: float, look: Callable[[], Any]) -> Any:
    """Look again and again for SECONDS; what was seen last."""
    end = time.monotonic() + seconds
    seen, _ = until("time passes", lambda: (look(), time.monotonic()), lambda pair: pair[1] >= end, timeout=600)
    return seen


def observe_blackout(history: Path) -> Blackout:
    """Cut the replication link for less than the agents' patience, under load, with the beacon on."""
    with listening("alpha") as wire, load(history) as client:
        wire.emit(ROUNDS)
        wire.wait_for_all(time.monotonic(), 120)
        client.wait_for(30, 120)
        before = agent.status("alpha")
        labctl("cut", "replication")
        try:
            begin = time.monotonic() + SETTLE
            during = pass_time(SETTLE + BLACKOUT, lambda: agent.status("alpha"))
            end = time.monotonic()
        finally:
            labctl("heal", "replication")
        wire.wait_for_all(end + 1, 300)
        client.wait_for(30, 300)
        after = wait_protected()
        client.stop()
        report = client.judge()
    return Blackout(
        before,
        during,
        after,
        wire.between(begin, end),
        wire.between(0, begin),
        wire.between(end),
        report,
    )


@pytest.fixture(scope="module")
def blackout(_lab: None, tmp_path_factory: pytest.TempPathFactory) -> Blackout:
    """One cut, shared by the tests that look at it."""
    ensure_protected()
    return observe_blackout(tmp_path_factory.mktemp("blackout") / "history.jsonl")


def check_held(blackout: Blackout, kind: str) -> None:
    """Nothing of this kind came out while nothing was acknowledged."""
    assert blackout.sequences(blackout.earlier, kind), "no such frames before the cut: the test would prove nothing"
    leaked = blackout.sequences(blackout.inside, kind)
    assert not leaked, f"{len(leaked)} {kind} frames left the host without an acknowledgement: {leaked[:10]}"


class TestReplicationLinkCut:
    """No acknowledgement, no output; and no harm when the link comes back in time."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_nothing_of_a_kind_comes_out(self, blackout: Blackout, kind: str) -> None:
        check_held(blackout, kind)

    def test_nothing_else_comes_out_either(self, blackout: Blackout) -> None:
        assert blackout.inside == []
        assert blackout.during["held_packets"] > 0

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_was_held_comes_out_after_the_heal(self, blackout: Blackout, kind: str) -> None:
        last = max(blackout.sequences(blackout.earlier, kind))
        first = min(blackout.sequences(blackout.later, kind))
        assert first - last < BLACKOUT * 10 / 2, f"the frames between {last} and {first} are lost"

    def test_it_goes_on_in_the_same_session(self, blackout: Blackout) -> None:
        assert agent.session(blackout.after) == agent.session(blackout.before)
        assert blackout.after["committed_epoch"] > blackout.before["committed_epoch"]

    def test_the_client_lost_nothing(self, blackout: Blackout) -> None:
        assert blackout.report["verdict"] == "kept", blackout.report["reasons"]
        assert blackout.report["longest_gap"]["seconds"] >= BLACKOUT


def follow_until_protected(since: float) -> tuple[float, agent.Status]:
    """Wait for protection: the last moment at which there was surely no commit yet, and the status then."""
    quiet = [since]

    def look() -> agent.Status | None:
        asked = time.monotonic()
        try:
            state = agent.status("alpha")
        except NOT_YET:
            state = None
        if state is None or not agent.protected(state):
            quiet[0] = asked
        return state

    state = until("protected again", look, lambda seen: seen and agent.protected(seen), timeout=SEED_TIMEOUT)
    assert state is not None
    return quiet[0], state


def check_silent(wire: Listener, begin: float, end: float) -> None:
    """No frame of the guest between two moments."""
    leaked = wire.between(begin, end)
    assert not leaked, f"{len(leaked)} frames left the host unacknowledged, first {leaked[0]}"


@pytest.mark.long
def test_link_cut_for_longer_than_the_timeout(protected: agent.Status, tmp_path: Path) -> None:
    with listening("alpha") as wire, load(tmp_path / "history.jsonl") as client:
        wire.emit(ROUNDS)
        wire.wait_for_all(time.monotonic(), 120)
        labctl("cut", "replication")
        try:
            begin = time.monotonic() + SETTLE
            until(
                "the primary gives the session up",
                lambda: agent.status("alpha"),
                lambda state: state["state"] == "silent",
                timeout=400,
            )
            assert any(copy.name == GUEST and copy.runs for copy in copies("alpha")), "the guest must go on"
        finally:
            labctl("heal", "replication")
        end, after = follow_until_protected(begin)
        check_silent(wire, begin, end)
        wire.wait_for_all(time.monotonic(), 120)
        client.wait_for(30, 300)
        client.stop()
        report = client.judge()
    assert agent.session(after) != agent.session(protected), "a new session sends everything again"
    assert report["verdict"] == "kept", report["reasons"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("phase", "epoch"),
    [
        *((phase, STEADY) for phase in PHASES),
        ("awaiting-ack", 1),
    ],
)
def test_agent_killed_at_phase(protected: agent.Status, tmp_path: Path, phase: str, epoch: int) -> None:
    with listening("alpha") as wire, load(tmp_path / "history.jsonl") as client:
        wire.emit(ROUNDS)
        wire.wait_for_all(time.monotonic(), 120)
        faults.seed("alpha", f"pause-at:{phase}:{epoch}")
        try:
            on("alpha", f"systemctl restart {faults.UNIT}", timeout=180)
            pid = until("the agent has started", lambda: faults.main_pid("alpha"), timeout=120)
            until(
                f"the agent stops itself at {phase} of epoch {epoch}",
                lambda: faults.process_state("alpha", pid),
                lambda letter: letter == "T",
                timeout=SEED_TIMEOUT,
            )
            paused = agent.status("beta")
        finally:
            faults.clear("alpha")
        on("alpha", f"kill -KILL {pid}")
        killed = time.monotonic()
        until(
            "the guest runs",
            lambda: copies("alpha"),
            lambda found: any(copy.name == GUEST and copy.runs for copy in found),
            timeout=90,
        )
        end, after = follow_until_protected(killed)
        check_silent(wire, killed, end)
        assert agent.session(after) not in (agent.session(paused), agent.session(protected))
        wire.wait_for_all(time.monotonic(), 120)
        client.wait_for(30, 300)
        client.stop()
        report = client.judge()
    assert report["verdict"] == "kept", report["reasons"]
    later = until(
        "epochs rise",
        lambda: agent.status("alpha"),
        lambda state: state["committed_epoch"] > after["committed_epoch"],
        timeout=120,
    )
    assert later["state"] == "protected"


def lose_the_primary(history: Path, faulty: bool) -> dict[str, Any]:
    """The link is cut, then the primary dies: the proof's report after the failover. faulty: replies are expected although
    nothing is acknowledged."""
    with load(history, "--stall-limit", "30" if faulty else "900") as client:
        client.wait_for(30, 120)
        labctl("cut", "replication")
        if faulty:
            client.wait_for(20, 120)  # a whole batch that was asked for after the cut
        else:
            pass_time(SETTLE + BLACKOUT, lambda: agent.status("alpha"))
        dead = time.time()
        die()
        labctl("heal", "guests")
        take_over()
        if faulty:
            client.end(600)
            return client.judge()
        client.wait_for(30, 400)
        client.stop()
        return client.judge({"death": dead})


@pytest.mark.long
def test_nothing_acknowledged_is_lost_when_the_primary_dies(
    protected: agent.Status, home: None, tmp_path: Path
) -> None:
    report = lose_the_primary(tmp_path / "history.jsonl", faulty=False)
    assert report["verdict"] == "kept", report["reasons"]


class TestSeededFaults:
    """The same checks, on an agent that is broken on purpose, must turn red."""

    def test_without_the_ack_wait_replies_are_lost(self, protected: agent.Status, home: None, tmp_path: Path) -> None:
        faults.seed("alpha", "ack-wait-removed")
        try:
            faults.restart("alpha")
            wait_protected()
            report = lose_the_primary(tmp_path / "history.jsonl", faulty=True)
        finally:
            faults.clear("alpha")
        assert report["verdict"] == "red"
        assert report["lost"]["count"] > 0, report

    @pytest.mark.long
    def test_with_ipv4_held_alone_other_kinds_leak(self, protected: agent.Status, tmp_path: Path) -> None:
        with faults.seeded("alpha", "hold-ipv4-only"):
            wait_protected()
            seen = observe_blackout(tmp_path / "history.jsonl")
        check_held(seen, "ipv4")
        for kind in set(KINDS) - {"ipv4"}:
            with pytest.raises(AssertionError, match="left the host without an acknowledgement"):
                check_held(seen, kind)
