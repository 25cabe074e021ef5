"""The device below a protected guest's disk goes away under its running primary: what its clients were told outlives it.

Takes the guest to alpha with a disk; afterwards it runs there without one, unprotected.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pair import agent, database
from pair.disks import take_away
from pair.guest import WITH_DISK, come_home
from pair.hosts import GUEST, labctl, on
from pair.load import load, now
from pair.protection import NOT_YET, SEED_TIMEOUT, require_agents, take_over, wait_protected
from pair.wait import until

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(3600)]

MAPPER = f"remus-{GUEST}-xvda"
ROWS = 20
HELD_ROWS = 5
"""Each waits for an epoch, and takes seconds on a slow emulated host."""
LATER = 5
"""Epochs that are committed after the loss."""


@pytest.fixture
def protected(lab: dict[str, Any]) -> Iterator[agent.Status]:
    """The guest on alpha with its disk, protected to beta; PostgreSQL answers."""
    require_agents()
    come_home(configuration=WITH_DISK)
    database.wait_ready()
    agent.ask("alpha", "protect", timeout=SEED_TIMEOUT, domain=GUEST, peer="beta", wait=False)
    yield wait_protected()
    labctl("start", "alpha")
    until("alpha's agent answers", lambda: agent.answers("alpha"), timeout=600)
    come_home()


def failed(state: agent.Status) -> bool:
    return all(disk["problem"] for disk in state["disks"])


def test_what_was_acknowledged_outlives_a_disk_that_disappears(protected: agent.Status, tmp_path: Path) -> None:
    assert "/run/remus/md/" in on("alpha", "losetup --list --noheadings --output BACK-FILE"), (
        "md's metadata lie in memory"
    )
    with load(tmp_path / "rows.jsonl", rows=True) as client:
        client.wait_for(HELD_ROWS, 300)
        take_away("alpha")
        lost = until("the loss is told", lambda: agent.status("alpha"), failed, timeout=300, passing=NOT_YET)
        assert on("alpha", f"dmsetup status {MAPPER}").split()[5] == "DA"
        until(
            "epochs go on",
            lambda: agent.status("alpha"),
            lambda seen: (
                agent.session(seen) == agent.session(protected)
                and seen["committed_epoch"] >= lost["committed_epoch"] + LATER
            ),
            timeout=300,
            passing=NOT_YET,
        )
        with pytest.raises(agent.AgentError, match="has failed"):
            agent.ask("alpha", "unprotect", timeout=120, domain=GUEST, force=True)
        killed = now()
        labctl("kill", "alpha")
        take_over()
        client.wait_for(ROWS, 600)
        client.stop()
        proof = client.judge({"power loss": killed})
    assert proof["verdict"] == "kept", proof["reasons"]
    labctl("start", "alpha")
    until("alpha's agent answers", lambda: agent.answers("alpha"), timeout=600)
    agent.ask("beta", "protect", timeout=SEED_TIMEOUT, domain=GUEST, peer="alpha", wait=False)
    wait_protected(host="beta")
