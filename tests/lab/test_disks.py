"""A guest with PostgreSQL on its protected disk: what it acknowledged is there after its host died, and its disks agree.

Takes the guest to alpha with a disk; afterwards it runs there without one, unprotected.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pair import agent, database, faults
from pair.disks import compare, fsck, settled, writes
from pair.guest import WITH_DISK, come_home, copies, running_copies
from pair.hosts import GUEST, heal_links, labctl, on, succeeds
from pair.load import load, now
from pair.protection import NOT_YET, SEED_TIMEOUT, die, require_agents, take_over, unprotected, wait_protected
from pair.wait import until
from proof import rows

pytestmark = [pytest.mark.lab, pytest.mark.timeout(3600)]

DEVICE = "/dev/vdc"
ROWS = 20
"""Committed after the host died."""
HELD_ROWS = 5
"""Committed before: each waits for an epoch, and takes seconds on a slow emulated host."""
KILLS = 10
POWER_LOSSES = (3, 8)
"""Of these kills, by number, the whole host goes and boots again: once alpha, once beta. Booting takes minutes here."""
LONG_EPOCH_MS = 30_000
"""Milliseconds: a row is written within one, on a slow machine too. Its reply leaves at the end, so that no epoch has two."""
OPEN_EPOCH = 3
"""Not committed when alpha dies. The first one ends the seeding; the next lets a client hear of a row, who sends another."""
BACKGROUND = 30.0
"""Seconds: longer than PostgreSQL's background writer takes to log, once more after a checkpoint, which transactions run."""
PARTINGS = 5
"""Tries to end a protection while the guest's system, which writes when it likes to, does not."""


@pytest.fixture
def at_home(lab: dict[str, Any]) -> Iterator[None]:
    """The guest fresh on alpha with its disk, protected by nobody; PostgreSQL answers, and has its table."""
    require_agents()
    come_home(configuration=WITH_DISK)
    database.wait_ready()
    if database.can_forget():
        database.past_the_cache(False)  # as an earlier test may have left it
    database.sql(rows.SCHEMA, timeout=300)  # it reads its catalogue from the disk for it, a minute on a slow machine
    yield
    bring_back()
    come_home()


@pytest.fixture
def forgetful(at_home: None) -> bool:
    """PostgreSQL reads again what it changes, which costs time: true where its version can do so."""
    return database.forgetful()


def bring_back(host: str = "alpha") -> None:
    """Undo what `die` has cut."""
    heal_links()
    on(host, "systemctl start remus-agent.service", timeout=180)
    until(f"{host}'s agent answers", lambda: agent.answers(host), timeout=120)


def protect(host: str, peer: str) -> agent.Status:
    """Protect the guest, and wait for the first commit."""
    agent.ask(host, "protect", timeout=SEED_TIMEOUT, domain=GUEST, peer=peer, wait=False)
    return wait_protected(host=host)


def part_while_nothing_is_written() -> None:
    """beta's guest is unprotected, and paused, without a write since all that it had written was committed."""
    for _ in range(PARTINGS):
        count = settled("beta", DEVICE, BACKGROUND)
        agent.ask("beta", "unprotect", timeout=300, domain=GUEST, force=False)
        on("beta", f"xl pause {GUEST}")
        if writes("beta", DEVICE) == count:
            return
        print("the guest has written to its disk while its protection ended: once more", flush=True)
        on("beta", f"xl unpause {GUEST}")
        protect("beta", "alpha")
    raise AssertionError(f"the guest has written to its disk at each of {PARTINGS} ends of its protection")


def lose_an_open_epoch(history: Path) -> dict[str, Any]:
    """alpha dies when all that was written to its disk in an epoch is sent, and memory's end of the epoch is not; the proof
    after the failover."""
    faults.seed("alpha", f"pause-at:sending:{OPEN_EPOCH}")
    try:
        faults.restart("alpha")
        pid = faults.main_pid("alpha")
    finally:
        faults.clear("alpha")
    with load(history, rows=True) as client:
        agent.ask(
            "alpha", "protect", timeout=SEED_TIMEOUT, domain=GUEST, peer="beta", wait=False, interval_ms=LONG_EPOCH_MS
        )
        until(
            "its agent stops itself",
            lambda: faults.process_state("alpha", pid),
            lambda letter: letter == "T",
            timeout=900,
        )
        die()
        assert take_over()["committed_epoch"] == OPEN_EPOCH - 1
        client.wait_for(ROWS, 600)
        client.stop()
        return client.judge()


def outlive_the_host(history: Path) -> None:
    """alpha dies under load; beta takes over, and nothing that the client was told is lost."""
    state = protect("alpha", "beta")
    assert [disk["vdev"] for disk in state["disks"]] == ["xvda"]
    with load(history, rows=True) as client:
        client.wait_for(HELD_ROWS, 300)
        killed = now()
        die()
        take_over()
        client.wait_for(ROWS, 600)
        client.stop()
        proof = client.judge({"power loss": killed})
    assert proof["verdict"] == "kept", proof["reasons"]
    assert proof["lost"]["count"] == proof["duplicated"]["count"] == 0
    assert [(copy.name, copy.runs) for copy in copies("beta")] == [(GUEST, True)]


@pytest.mark.long
def test_what_postgresql_acknowledged_outlives_its_host(at_home: None, tmp_path: Path) -> None:
    outlive_the_host(tmp_path / "rows.jsonl")


def need_forgetful(forgetful: bool) -> None:
    if not forgetful:
        pytest.skip("this version of PostgreSQL can't be told to forget what it holds in memory")


@pytest.mark.long
def test_of_an_open_epoch_the_disk_keeps_nothing(forgetful: bool, tmp_path: Path) -> None:
    need_forgetful(forgetful)
    proof = lose_an_open_epoch(tmp_path / "rows.jsonl")
    assert proof["verdict"] == "kept", proof["reasons"]


@pytest.mark.long
def test_a_disk_that_runs_ahead_of_memory_shows(forgetful: bool, tmp_path: Path) -> None:
    """The same is red when the backup changes its disk before the commit (`disk-apply-on-receipt`)."""
    need_forgetful(forgetful)
    with faults.seeded("beta", "disk-apply-on-receipt"):
        proof = lose_an_open_epoch(tmp_path / "rows.jsonl")
    assert proof["verdict"] == "red", "a disk ahead of memory went unnoticed"


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_ten_hosts_that_die(at_home: None, tmp_path: Path) -> None:
    """One connection over ten failovers, to and fro: each time the guest's host dies under load, and comes back as the
    backup, its disk brought to the new owner's."""
    primary, backup = "alpha", "beta"
    kills: dict[str, float] = {}
    with load(tmp_path / "rows.jsonl", "--seconds=7000", rows=True) as client:
        for number in range(1, KILLS + 1):
            protect(primary, backup)
            client.wait_for(HELD_ROWS, 300)
            kills[f"kill {number}"] = now()
            if number in POWER_LOSSES:
                labctl("kill", primary)
            else:
                die(primary)
            take_over(backup, primary)
            client.wait_for(ROWS, 600)
            assert [(copy.host, copy.name) for copy in running_copies()] == [(backup, GUEST)]
            print(f"kill {number}: {primary} died, {backup} goes on, {client.acknowledged()} rows", flush=True)
            if number in POWER_LOSSES:
                labctl("start", primary)
                until(f"{primary}'s agent answers", partial(agent.answers, primary), timeout=600)
            else:
                bring_back(primary)
            until(f"{primary} runs nothing", partial(copies, primary), lambda found: not found, timeout=300)
            primary, backup = backup, primary
        client.stop()
        proof = client.judge(kills)
    assert proof["verdict"] == "kept", proof["reasons"]
    assert proof["lost"]["count"] == proof["duplicated"]["count"] == 0


@pytest.mark.long
def test_the_old_disk_is_brought_to_the_new_owners(at_home: None, tmp_path: Path) -> None:
    """What alpha wrote and never committed is undone; the devices agree, and the file system is whole."""
    outlive_the_host(tmp_path / "rows.jsonl")
    bring_back()
    until("alpha has forgotten it", lambda: agent.status("alpha"), unprotected, timeout=120, passing=NOT_YET)
    protect("beta", "alpha")
    mapper = f"/dev/mapper/remus-{GUEST}-xvda"
    assert not succeeds("alpha", f"dd if={mapper} of=/dev/null bs=4096 count=1 iflag=direct"), "a copy can be read"
    database.sql("CHECKPOINT", timeout=300)
    part_while_nothing_is_written()
    assert compare(("alpha", DEVICE), ("beta", DEVICE)) == []
    on("beta", f"xl unpause {GUEST} && xl shutdown -w {GUEST}", timeout=300)
    on("beta", f"blockdev --flushbufs {DEVICE}")  # the host's cache knows nothing of what the guest wrote
    assert fsck("beta", DEVICE) == ""
