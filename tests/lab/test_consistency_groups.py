"""An application and its database as one group: after their host has died both go on from one commit.

Takes the guest to alpha; afterwards it runs there without a disk, unprotected.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pair import agent, database, group
from pair.group import GROUP
from pair.guest import WITH_DISK, come_home
from pair.hosts import GUEST, HOSTS, CommandFailed, heal_links, on
from pair.load import load
from pair.protection import SEED_TIMEOUT, die, require_agents, take_over, wait_protected
from pair.second_guest import ADDRESS, NAME, VOLUMES, second_guest
from pair.slices import long_slices
from pair.volumes import volumes

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(10800)]

INTERVAL_MS = 1000
"""Two databases and dom0 share one emulated processor: epochs without a pause would leave the guests nothing."""


@pytest.fixture
def shop(lab: dict[str, Any]) -> Iterator[None]:
    """Both guests on alpha, unprotected, the first one's PostgreSQL writing to the second one's."""
    require_agents()
    for host in HOSTS:
        on(host, f"xl destroy {GUEST} 2>/dev/null || true", timeout=180)
    try:
        with long_slices(), volumes(*VOLUMES), second_guest("alpha"):
            come_home(configuration=WITH_DISK)
            for address in (database.HOST, ADDRESS):
                database.wait_ready(address)
                database.forgetful(address)
            group.prepare()
            with group.configured():
                require_agents()
                yield
                heal_links()
                for host in HOSTS:
                    with contextlib.suppress(agent.AgentError, CommandFailed):  # none answers on the host that has died
                        agent.ask(host, "unprotect", timeout=300, domain=GROUP, force=True)
    finally:
        come_home()


def test_an_application_and_its_database_are_of_one_commit(shop: None, tmp_path: Path) -> None:
    with pytest.raises(agent.AgentError, match="member of the group"):
        agent.ask("alpha", "protect", domain=NAME, peer="beta", wait=False)
    request = {"domain": GROUP, "peer": "beta", "wait": False, "interval_ms": INTERVAL_MS}
    agent.ask("alpha", "protect", timeout=SEED_TIMEOUT, **request)
    state = wait_protected(guest=GROUP)
    assert [member["domain"] for member in state["members"]] == [GUEST, NAME]
    assert sorted(disk["vdev"] for disk in state["disks"]) == [f"{GUEST}/xvda", f"{NAME}/xvda", f"{NAME}/xvdb"]
    # A row takes several round trips between the guests, and each of them two commits.
    with load(tmp_path / "rows.jsonl", rows=True, first=2, timeout=900) as client:
        client.wait_for(3, 900)
        die(guests=(GUEST, NAME))
        state = take_over(guest=GROUP)
        assert state["state"] in ("active", "solo")
        client.wait_for(10, 900)  # over the connection that it had, and over theirs to each other
        client.stop()
        proof = client.judge()
    assert proof["verdict"] == "kept", proof["reasons"]
    application, orders = group.known_to_the_application(), group.known_to_the_database()
    assert application <= orders, f"the application knows rows that the database does not: {application - orders}"
    assert len(orders - application) <= 1, f"the database knows rows that nobody has asked for: {orders - application}"
    running = on("beta", "xl list")
    assert [name for name in (GUEST, NAME) if name in running] == [GUEST, NAME]
    assert "incoming" not in running
