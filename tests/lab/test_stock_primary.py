"""Stock `xl remus` protects the guest to our backup: its command is our relay, our acknowledgements hold it, our commit decides
what is activated.

Stock has no output buffer on Debian, so replies that clients were told may be lost: what is shown is that the guest goes on
from one committed epoch. Takes the guest to alpha; afterwards it runs there again, unprotected.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pair import agent, redis, stock_remus
from pair.guest import answers, come_home, copies, running_copies
from pair.hosts import GUEST, CommandFailed, on
from pair.load import load
from pair.protection import SEED_TIMEOUT, ensure_unprotected, take_over
from pair.wait import until

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(3600)]

FOLDER = "/run/remus-test-relay"
TAKE = f"""echo $$ >{FOLDER}/pid
exec remusctl stream send --to beta --domain {GUEST} --banner --json 2>{FOLDER}/said"""
"""What `xl remus` runs, with the stream on its standard input."""
KILL = f"kill -KILL $(cat {FOLDER}/pid) 2>/dev/null; {stock_remus.KILL}"
"""Shell commands that end the relay and the xl that runs it."""
KEYS = ("stock:first", "stock:second")
"""Two counters that are always raised together."""
AHEAD = 10
"""Epochs after which a value is surely in the copy: more than a pipe between xl and the relay can hold."""


@pytest.fixture
def relay(lab: dict[str, Any]) -> Iterator[None]:
    """The guest on alpha, protected to beta by stock `xl remus`, with at least ten acknowledged epochs."""
    ensure_unprotected()
    try:
        stock_remus.start(FOLDER, TAKE)
        committed(AHEAD, SEED_TIMEOUT)
        yield
    finally:
        on("alpha", f"{KILL}; true")
        come_home()
        on("alpha", f"rm -rf {FOLDER}")


def said() -> str:
    """What the relay and xl have said so far, for failures."""
    return on("alpha", f"cd {FOLDER} && tail -n 20 said xl.log status 2>&1 || true")


def committed(least: int, timeout: float) -> int:
    """Wait until beta has committed so many epochs of stock's; how many it has. Raises at once when the relay has ended."""

    def look() -> int:
        if on("alpha", f"cat {FOLDER}/status 2>/dev/null || true").strip():
            raise CommandFailed(f"xl remus has ended:\n{said()}")
        state = agent.status("beta")
        return int(state["committed_epoch"]) if state["role"] == "backup" else 0

    return until(f"{least} epochs committed on beta", look, lambda epochs: epochs >= least, timeout=timeout)


def raise_counters() -> int:
    """Raise both counters in one transaction; the value that both have then."""
    answer = redis.answers("MULTI", *(f"INCR {key}" for key in KEYS), "EXEC")
    first, second = map(int, answer[-2:])
    assert first == second
    return first


def test_our_backup_activates_the_last_epoch_of_stock_xl(relay: None, tmp_path: Path) -> None:
    state = agent.status("beta")
    assert (state["role"], state["state"], state["peer"]) == ("backup", "ready", "alpha")
    assert set(agent.probe_reasons("alpha", "beta")) == {"refused"}, "alpha's agent must leave the guest alone"
    with load(tmp_path / "history.jsonl") as client:
        client.wait_for(60, 300)
        surely = raise_counters()
        epoch = int(agent.status("beta")["committed_epoch"])
        reached = committed(epoch + AHEAD, 600)
        at_most = raise_counters()
        on("alpha", f"{KILL}; xl destroy {GUEST}", timeout=180)
        until("the copy waits for an operator", lambda: agent.status("beta")["state"], "orphaned".__eq__, timeout=120)
        active = take_over()
    assert (active["role"], active["state"]) == ("primary", "active")
    assert active["committed_epoch"] >= reached
    assert [copy.runs for copy in copies("beta") if copy.name == GUEST] == [True]
    assert [copy.host for copy in running_copies()] == ["beta"]
    until("the guest answers", answers, timeout=300)
    first, second = map(int, redis.answers(*(f"GET {key}" for key in KEYS)))
    assert first == second, "the state is not of one moment"
    assert surely <= first <= at_most


def test_stock_xl_goes_on_alone_when_the_relay_ends(relay: None) -> None:
    raise_counters()
    on("alpha", f"kill -TERM $(cat {FOLDER}/pid)")
    until("xl remus has ended", lambda: on("alpha", f"cat {FOLDER}/status 2>/dev/null || true").strip(), timeout=300)
    report = json.loads(on("alpha", f"grep summary {FOLDER}/said"))["summary"]
    assert report["epochs"] >= AHEAD, said()
    until("the guest answers", answers, timeout=300)
    raise_counters()
    until("the copy is kept", lambda: agent.status("beta")["state"], "orphaned".__eq__, timeout=120)
    assert agent.status("beta")["committed_epoch"] >= report["epochs"]
    agent.ask("beta", "unprotect", timeout=300, domain=GUEST, force=True)
    assert copies("beta") == []
    # Xen hands out memory only after it has cleaned it.
    until("it may be protected", lambda: agent.probe_reasons("alpha", "beta"), lambda reasons: not reasons, timeout=120)
