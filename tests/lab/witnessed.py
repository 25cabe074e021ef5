"""Fixtures and questions of lab tests on a pair with a witness."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pair import agent
from pair.guest import come_home, running_copies
from pair.hosts import GUEST, heal_links
from pair.load import Load
from pair.protection import NOT_YET, SEED_TIMEOUT, require_agents, wait_protected
from pair.wait import until
from pair.witness import witnessed

AUTOMATIC = 120.0
"""Seconds for what an agent does by itself: to suspect, to ask, to activate."""
BOOTED = 900.0
"""Seconds for a host that was switched on or reset, in emulation."""


@pytest.fixture(scope="module")
def witness(lab: dict[str, Any]) -> Iterator[None]:
    """gamma runs etcd, and both agents know it; afterwards the pair is without one, as before."""
    with witnessed():
        yield


@pytest.fixture
def recorded(witness: None) -> Iterator[None]:
    """The guest fresh on alpha, protected to beta, which the record names."""
    heal_links()
    require_agents()
    come_home()
    agent.ask("alpha", "protect", timeout=SEED_TIMEOUT, domain=GUEST, peer="beta", wait=False)
    wait_protected(host="alpha")
    until("the backup is named", lambda: agent.status("alpha"), lambda seen: not seen["reason"], timeout=AUTOMATIC)
    yield
    heal_links()


def runs_on(host: str) -> None:
    """Wait until the guest runs there, and nowhere else."""
    until(
        f"the guest runs on {host} alone",
        running_copies,
        lambda found: [(copy.host, copy.name) for copy in found] == [(host, GUEST)],
        timeout=AUTOMATIC,
        passing=NOT_YET,
    )


def kept(client: Load, marks: dict[str, float]) -> None:
    """End the client; it was told nothing that is not so."""
    client.wait_for(60, 600)
    client.stop()
    proof = client.judge(marks)
    assert proof["verdict"] == "kept", proof["reasons"]
    assert proof["lost"]["count"] == proof["duplicated"]["count"] == 0
