"""Xen's watchdog on a real Xen: a host that owns a guest, and whose agent hangs, is reset; its backup has taken over before.

With a witness (`witnessed.py`), and a watchdog on alpha alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pair import agent, faults
from pair.guest import Copy, copies
from pair.hosts import GUEST, on, succeeds
from pair.load import load, now
from pair.protection import NOT_YET, wait_protected
from pair.wait import until
from witnessed import AUTOMATIC, BOOTED, kept, runs_on

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(5400)]

SECONDS = 180
CONFIGURATION = "/etc/remus/agent.toml"
BEFORE = "/etc/remus/agent.toml.before-test"
NOTE = "/run/remus/watchdog.json"
DROP_IN = f"{faults.FOLDER}/90-no-restart.conf"


def boot() -> str:
    """What alpha's kernel calls this boot."""
    return on("alpha", "cat /proc/sys/kernel/random/boot_id").strip()


def armed() -> bool:
    """Whether alpha's watchdog is, as its agent says. Raises when that has none."""
    found = agent.ask("alpha", "agent")["watchdog"]
    assert found is not None, "the agent has no watchdog configured"
    assert found["problem"] is None
    return bool(found["armed"])


def wait_armed() -> None:
    until("alpha's watchdog is armed", armed, timeout=AUTOMATIC, passing=NOT_YET)


@pytest.fixture
def watchdog(witness: None) -> Iterator[None]:
    """alpha's agent has one, from before its guest is protected."""
    on("alpha", f"cp -a {CONFIGURATION} {BEFORE} && printf '\\n[watchdog]\\nseconds = {SECONDS}\\n' >> {CONFIGURATION}")
    try:
        faults.restart("alpha")
        yield
    finally:
        until("alpha is reached", lambda: succeeds("alpha", "true"), timeout=BOOTED)
        on("alpha", f"mv {BEFORE} {CONFIGURATION}; rm -f {DROP_IN}; systemctl daemon-reload")
        pid = faults.main_pid("alpha")
        if pid:
            on("alpha", f"kill -CONT {pid}")
        faults.restart("alpha")


@pytest.fixture
def restarted_by_nobody(watchdog: None) -> None:
    """Neither systemd's own watchdog nor its restart of alpha's agent; until alpha's next boot."""
    text = "[Service]\nWatchdogSec=0\nRestart=no\n"
    on("alpha", f"mkdir -p {faults.FOLDER} && cat > {DROP_IN} && systemctl daemon-reload", stdin=text)
    faults.restart("alpha")


def test_a_host_whose_agent_hangs_is_reset(restarted_by_nobody: None, recorded: None, tmp_path: Path) -> None:
    """beta takes over by the record and does not wait for the reset; then alpha boots, and becomes the backup."""
    wait_armed()
    before = boot()
    with load(tmp_path / "history.jsonl") as client:
        client.wait_for(60, 300)
        stopped = now()
        on("alpha", f"kill -STOP {faults.main_pid('alpha')}")

        def on_beta() -> list[Copy]:
            return [copy for copy in copies("beta") if copy.runs and copy.name == GUEST]

        until("beta runs the guest", on_beta, timeout=AUTOMATIC, passing=NOT_YET)
        client.wait_for(60, 600)
        until("alpha was reset", boot, lambda seen: seen != before, timeout=SECONDS + BOOTED, passing=NOT_YET)
        runs_on("beta")
        kept(client, {"agent stopped": stopped})
    wait_protected(host="beta")
    assert not [copy for copy in copies("alpha") if copy.runs]
    assert not armed(), "alpha owns nothing any more"


def test_an_agent_that_was_killed_is_followed_by_one_that_takes_it_over(
    watchdog: None, recorded: None, tmp_path: Path
) -> None:
    """systemd starts it again, and the host goes on for longer than the watchdog's time; an orderly stop disarms it."""
    wait_armed()
    before, note = boot(), on("alpha", f"cat {NOTE}")
    with load(tmp_path / "history.jsonl") as client:
        client.wait_for(60, 300)
        killed = now()
        on("alpha", f"systemctl kill --signal=KILL {faults.UNIT}")
        wait_armed()
        assert on("alpha", f"cat {NOTE}") == note, "the same one, by its number"
        end = time.monotonic() + 1.2 * SECONDS
        until("its time is over", lambda: time.monotonic() > end, timeout=1.5 * SECONDS, every=5)
        assert boot() == before
        kept(client, {"agent killed": killed})
    on("alpha", f"systemctl stop {faults.UNIT}", timeout=180)
    try:
        assert not succeeds("alpha", f"test -e {NOTE}"), "nobody pets it, so it is not armed"
    finally:
        on("alpha", f"systemctl start {faults.UNIT}", timeout=180)
    until("alpha's agent answers", lambda: agent.answers("alpha"), timeout=AUTOMATIC)
