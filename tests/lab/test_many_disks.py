"""Several guests with disks, and several disks of a guest: each guest's memory and all its disks are of one epoch.

Takes the guest to alpha; afterwards it runs there without a disk, unprotected.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pair import agent, database
from pair.guest import WITH_DISK, come_home, copies
from pair.hosts import GUEST, HOSTS, heal_links, on
from pair.load import load
from pair.protection import SEED_TIMEOUT, die, require_agents, take_over, wait_protected
from pair.second_guest import ADDRESS, NAME, VOLUMES, second_guest
from pair.slices import long_slices
from pair.volumes import volumes

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(3600)]

INTERVAL_MS = 1000
"""One emulated processor has two databases, and dom0 that protects both: epochs without a pause would leave them nothing."""


@pytest.fixture
def guests(lab: dict[str, Any]) -> Iterator[None]:
    """Both guests on alpha, unprotected. The second has its tables on another disk than their log."""
    require_agents()
    for host in HOSTS:
        on(host, f"xl destroy {GUEST} 2>/dev/null || true", timeout=180)
    try:
        with long_slices(), volumes(*VOLUMES), second_guest("alpha"):
            come_home(configuration=WITH_DISK)
            database.wait_ready()
            database.wait_ready(ADDRESS)
            database.sql("COPY (SELECT 1) TO PROGRAM 'mkdir /second/rows'", ADDRESS)
            database.sql("DROP TABLE IF EXISTS proof_rows", ADDRESS)
            database.sql("CREATE TABLESPACE second LOCATION '/second/rows'", ADDRESS)
            database.sql("ALTER DATABASE proof SET default_tablespace = second", ADDRESS)
            database.forgetful()
            database.forgetful(ADDRESS)
            yield
            heal_links()
    finally:
        come_home()


def test_guests_and_their_disks_live_independent_lives(guests: None, tmp_path: Path) -> None:
    """Both are protected at once, both go on beside the host that died, each with its own disks of its own epoch."""
    for guest in (GUEST, NAME):
        request = {"domain": guest, "peer": "beta", "wait": False, "interval_ms": INTERVAL_MS}
        agent.ask("alpha", "protect", timeout=SEED_TIMEOUT, **request)
    disks = {guest: sorted(disk["vdev"] for disk in wait_protected(guest=guest)["disks"]) for guest in (GUEST, NAME)}
    assert disks == {GUEST: ["xvda"], NAME: ["xvda", "xvdb"]}, "a read-only disk needs no copy, every other does"
    other = f"{ADDRESS}:{database.PORT}"
    with (
        load(tmp_path / "one.jsonl", rows=True) as one,
        load(tmp_path / "two.jsonl", rows=True, guest=other) as two,
    ):
        for client in (one, two):
            client.wait_for(5, 300)  # each waits for an epoch, seconds on a slow emulated host
        die(guests=(GUEST, NAME))
        for guest in (GUEST, NAME):
            take_over(guest=guest)
        for client in (one, two):
            client.wait_for(20, 600)
        proofs = []
        for client in (one, two):
            client.stop()
            proofs.append(client.judge())
    assert [proof["verdict"] for proof in proofs] == ["kept", "kept"], [proof["reasons"] for proof in proofs]
    running = on("beta", "xl list")
    assert [name for name in (GUEST, NAME) if name in running] == [GUEST, NAME]
    assert [(copy.name, copy.runs) for copy in copies("beta")] == [(GUEST, True)]
