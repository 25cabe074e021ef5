"""What takes part in a protection goes away for a while: the guest serves on, protection returns by itself, and of its disk only
regions travel that changed meanwhile.

Takes the guest to alpha with a disk; afterwards it runs there without one, unprotected.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pair import agent, database, faults, guest_writer
from pair.guest import WITH_DISK, come_home, console
from pair.hosts import GUEST, labctl, on
from pair.load import Load, load
from pair.protection import NOT_YET, SEED_TIMEOUT, cut, require_agents, wait_protected
from pair.wait import SLOWEST, until

from remus_agent.adapters.disk.tap import TapLimits

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(3600)]

HELD_ROWS = 5
"""Each waits for an epoch, and takes seconds on a slow emulated host."""
PART = 8
"""At most this part of the disk may have to be looked at after an outage: 40 MiB of 320, far above what the load writes."""
KILLS = 20


@pytest.fixture
def rows(lab: dict[str, Any], tmp_path: Path) -> Iterator[Load]:
    """The guest protected, PostgreSQL under load."""
    require_agents()
    come_home(configuration=WITH_DISK)
    database.wait_ready()
    agent.ask("alpha", "protect", timeout=SEED_TIMEOUT, domain=GUEST, peer="beta", wait=False)
    wait_protected()
    with load(tmp_path / "rows.jsonl", rows=True) as client:
        yield client
    labctl("heal", "replication")
    come_home()


def silent(state: agent.Status) -> bool:
    """Whether the primary knows that its backup is gone."""
    return state["role"] == "primary" and state["state"] not in ("protected", "seeding")


def kill_the_primarys_agent() -> None:
    on("alpha", "systemctl kill --signal=KILL remus-agent.service")
    until("alpha's agent answers", lambda: agent.answers("alpha"), timeout=180)


def cut_the_link() -> None:
    with cut():
        until("alpha is silent", lambda: agent.status("alpha"), silent, timeout=300, passing=NOT_YET)


def kill_the_backups_agent() -> None:
    on("beta", "systemctl kill --signal=KILL remus-agent.service")
    until("beta's agent answers", lambda: agent.answers("beta"), timeout=180)


def cut_the_backups_power() -> None:
    labctl("kill", "beta")
    until("alpha is silent", lambda: agent.status("alpha"), silent, timeout=300, passing=NOT_YET)
    labctl("start", "beta")
    until("beta's agent answers", lambda: agent.answers("beta"), timeout=600)


OUTAGES = (kill_the_primarys_agent, cut_the_link, kill_the_backups_agent, cut_the_backups_power)


def timeouts(host: str) -> int:
    """How often the kernel has given up waiting for what a tap was asked (Linux, drivers/block/nbd.c)."""
    return on(host, "journalctl --dmesg --boot --output=cat").count("Connection timed out")


def session_after(outage: Callable[[], None]) -> agent.Status:
    """The guest's state as soon as a new session protects it."""
    before = agent.status("alpha")
    outage()
    return until(
        f"a new session after {outage.__name__}",
        lambda: agent.status("alpha"),
        lambda seen: agent.protected(seen) and agent.session(seen) != agent.session(before),
        timeout=SEED_TIMEOUT,
        passing=NOT_YET,
    )


def test_after_an_outage_only_changed_regions_travel(rows: Load) -> None:
    rows.wait_for(HELD_ROWS, 300)
    for outage in OUTAGES:
        (disk,) = session_after(outage)["disks"]
        print(f"{outage.__name__}: {disk['total']} bytes to look at of {disk['size']}, {disk['sent']} sent so far")
        assert 0 < disk["total"] <= disk["size"] / PART, outage.__name__
        rows.wait_for(HELD_ROWS, 300)
    faults.restart("alpha")  # in good order, too
    wait_protected()
    rows.wait_for(HELD_ROWS, 300)
    rows.stop()
    proof = rows.judge()
    assert proof["verdict"] == "kept", proof["reasons"]
    assert on("alpha", f"xl list {GUEST}")


@pytest.mark.timeout(5400)
def test_twenty_killed_agents_cost_the_guest_no_write(rows: Load) -> None:
    """None fails, none waits until the kernel gives a tap up, and protection returns by itself each time. That is what the kernel
    says: what the guest measures has in it how long it waits for a processor, which it shares with an agent that starts."""
    said = timeouts("alpha")
    guest_writer.start()
    done = guest_writer.written()
    for number in range(1, KILLS + 1):
        session_after(kill_the_primarys_agent)
        before, done = done, guest_writer.written()
        print(f"kill {number}: {done.writes} writes, {done.failed} failed, the longest took {done.longest:.2f} s")
        assert done.writes > before.writes
        rows.wait_for(HELD_ROWS, 300)
    done = guest_writer.stop()
    print("slow:", *(f"{time.strftime('%T', time.gmtime(begun))} {took:.1f} s" for begun, took in guest_writer.slow()))
    rows.stop()
    assert done.failed == 0
    assert timeouts("alpha") == said
    assert done.longest < TapLimits().stall_seconds * SLOWEST
    proof = rows.judge()
    assert proof["verdict"] == "kept", proof["reasons"]
    assert "I/O error" not in console("alpha", GUEST)


DIE_WITH_A_WRITE = f"""
set -e
device=$(dmsetup info --columns --noheadings --options blkdevs_used remus-{GUEST}-xvda-tap)
pkill --signal STOP --full '[r]emus_agent.tap remus-{GUEST}-xvda'
until grep --quiet '[1-9]' /sys/block/$device/inflight; do sleep 0.02; done
systemctl kill --signal=KILL {faults.UNIT}
"""


def test_what_a_dead_tap_has_not_answered_fails_at_once(rows: Load) -> None:
    """The unit disconnects the device; without that the kernel waits until its timeout, and the guest with it."""
    said = timeouts("alpha")
    guest_writer.start()
    on("alpha", DIE_WITH_A_WRITE)
    wait_protected()
    done = guest_writer.stop()
    print(f"of {done.writes} writes {done.failed} failed, the longest took {done.longest:.2f} s")
    assert done.failed == 0
    assert timeouts("alpha") == said
    rows.wait_for(HELD_ROWS, 300)


def test_a_disk_that_a_dying_agent_left_suspended_goes_on(lab: dict[str, Any]) -> None:
    """The unit resumes it: a guest whose disk stands still waits for ever."""
    require_agents()
    mapper = f"remus-{GUEST}-xvda"

    def suspended() -> bool:
        return "Suspended" in on("beta", f"dmsetup info --columns --noheadings -o suspended {mapper}")

    on("beta", f"dmsetup suspend {mapper}")
    try:
        assert suspended()
        on("beta", f"systemctl kill --signal=KILL {faults.UNIT}")
        until("the disk goes on", lambda: not suspended(), timeout=120)
        until("beta's agent answers", lambda: agent.answers("beta"), timeout=180)
    finally:
        on("beta", f"dmsetup resume {mapper}")
