"""A guest with PostgreSQL on its protected disk: what it acknowledged is there after its host died, and its disks agree.

Takes the guest to alpha with a disk; afterwards it runs there without one, unprotected.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pair import agent
from pair.disks import compare, fsck
from pair.guest import WITH_DISK, come_home, copies
from pair.hosts import GUEST, POSTGRESQL, in_namespace, labctl, on, run, succeeds
from pair.load import load, now
from pair.protection import NOT_YET, SEED_TIMEOUT, die, require_agents, take_over, unprotected, wait_protected
from pair.wait import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]

DEVICE = "/dev/vdc"
HOST, PORT = POSTGRESQL.split(":")


@pytest.fixture
def database(lab: dict[str, Any]) -> Iterator[None]:
    """The guest fresh on alpha with its disk, PostgreSQL answering, protected by nobody."""
    require_agents()
    come_home(configuration=WITH_DISK)
    ready = in_namespace("pg_isready", "-q", "-h", HOST, "-p", PORT)
    until("PostgreSQL answers", lambda: run(ready) == "", timeout=300, passing=NOT_YET)
    yield
    labctl("heal", "replication")
    labctl("heal", "guests")
    on("alpha", "systemctl start remus-agent.service", timeout=180)
    until("alpha's agent answers", lambda: agent.answers("alpha"), timeout=120)
    come_home()


def protect(host: str, peer: str) -> agent.Status:
    """Protect the guest, and wait for the first commit."""
    agent.ask(host, "protect", timeout=SEED_TIMEOUT, domain=GUEST, peer=peer, wait=False)
    return wait_protected(host=host)


def quiet(host: str) -> None:
    """Wait until the guest has written nothing to its disk for longer than PostgreSQL's background writer takes to log, once
    more after a checkpoint, which transactions run."""
    patience = 30.0

    def silence() -> float:
        records = agent.ask(host, "records", timeout=60, domain=GUEST, limit=500)["epochs"]
        written = [record["started"] for record in records if record["disk_bytes"]]
        since = written[-1] if written else records[0]["started"]
        return float(records[-1]["started"] - since)

    until("the disk is quiet", silence, lambda seconds: seconds > patience, timeout=600, every=2)


def outlive_the_host(history: Path) -> None:
    """alpha dies under load; beta takes over, and nothing that the client was told is lost."""
    state = protect("alpha", "beta")
    assert [disk["vdev"] for disk in state["disks"]] == ["xvda"]
    with load(history, rows=True) as client:
        client.wait_for(60, 300)
        killed = now()
        die()
        take_over()
        client.wait_for(60, 600)
        client.stop()
        proof = client.judge({"power loss": killed})
    assert proof["verdict"] == "kept", proof["reasons"]
    assert proof["lost"]["count"] == proof["duplicated"]["count"] == 0
    assert [(copy.name, copy.runs) for copy in copies("beta")] == [(GUEST, True)]


def test_what_postgresql_acknowledged_outlives_its_host(database: None, tmp_path: Path) -> None:
    outlive_the_host(tmp_path / "rows.jsonl")


@pytest.mark.long
def test_the_old_disk_is_brought_to_the_new_owners(database: None, tmp_path: Path) -> None:
    """What alpha wrote and never committed is undone; the devices agree, and the file system is whole."""
    outlive_the_host(tmp_path / "rows.jsonl")
    labctl("heal", "replication")
    labctl("heal", "guests")
    on("alpha", "systemctl start remus-agent.service", timeout=180)
    until("alpha's agent answers", lambda: agent.answers("alpha"), timeout=120)
    until("alpha has forgotten it", lambda: agent.status("alpha"), unprotected, timeout=120, passing=NOT_YET)
    protect("beta", "alpha")
    mapper = f"/dev/mapper/remus-{GUEST}-xvda"
    assert not succeeds("alpha", f"dd if={mapper} of=/dev/null bs=4096 count=1 iflag=direct"), "a copy can be read"
    run(in_namespace("psql", "-h", HOST, "-p", PORT, "-U", "postgres", "-d", "proof", "-c", "CHECKPOINT"), timeout=300)
    quiet("beta")
    agent.ask("beta", "unprotect", timeout=300, domain=GUEST, force=False)
    on("beta", f"xl pause {GUEST}")
    assert compare(("alpha", DEVICE), ("beta", DEVICE)) == []
    on("beta", f"xl unpause {GUEST} && xl shutdown -w {GUEST}", timeout=300)
    on("beta", f"blockdev --flushbufs {DEVICE}")  # the host's cache knows nothing of what the guest wrote
    assert fsck("beta", DEVICE) == ""
