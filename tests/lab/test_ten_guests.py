"""Ten guests on one pair, each host primary of half of them: independent lives, and each outlives its host.

Takes the lab's own guest away; afterwards it runs on alpha, unprotected.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pair import agent
from pair.guest import come_home, forget
from pair.hosts import HOSTS, heal_links, on, on_both
from pair.load import Load, load
from pair.protection import SEED_TIMEOUT, die, require_agents, take_over, wait_protected
from pair.slices import long_slices
from pair.small_guests import SmallGuest, small_guests
from pair.wait import until

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(10800)]

COUNT = 10
INTERVAL_MS = 1000
"""Five guests and five copies share one emulated processor with dom0."""
RATE = "--rate=1"
"""Batches of a client in a second at most: guests whose output is not held leave time to those that are taken over."""
REPLIES = 20
"""Of each client, at each stage."""
PATIENCE = 900.0
"""Seconds for that: ten clients wait for epochs of ten guests."""


@pytest.fixture
def guests(lab: dict[str, Any]) -> Iterator[Sequence[SmallGuest]]:
    """All of them run, and are protected, each to the other host."""
    require_agents()
    heal_links()
    on_both(forget)
    try:
        with long_slices(), small_guests(COUNT) as found:
            for guest in found:
                protect(guest)
            for guest in found:
                wait_protected(host=guest.home, guest=guest.name)
            yield found
            heal_links()
    finally:
        come_home()


def protect(guest: SmallGuest) -> None:
    """Begin to; whoever needs that it is protected waits."""
    request = {"domain": guest.name, "peer": guest.peer, "wait": False, "interval_ms": INTERVAL_MS}
    agent.ask(guest.home, "protect", timeout=SEED_TIMEOUT, **request)


def sessions(guests: Sequence[SmallGuest]) -> dict[str, tuple[Any, Any]]:
    """The session that protects each guest now."""
    return {guest.name: agent.session(agent.status(guest.home, guest.name)) for guest in guests}


def test_ten_guests_live_independent_lives(guests: Sequence[SmallGuest], tmp_path: Path) -> None:
    """One is unprotected and protected again, and the others do not notice. Then a host dies: its five go on beside the
    five of the other one, which have lost their backup. No client was told anything that is not so, no connection was lost."""
    ours, theirs = ([guest for guest in guests if guest.home == host] for host in HOSTS)
    with contextlib.ExitStack() as running:
        clients: dict[str, Load] = {
            guest.name: running.enter_context(
                load(tmp_path / f"{guest.name}.jsonl", RATE, guest=f"{guest.address}:6379", first=0)
            )
            for guest in guests
        }  # they connect at the same time
        hear_of(clients, REPLIES)
        before, alone = sessions(guests), guests[0]
        agent.ask(alone.home, "unprotect", timeout=300, domain=alone.name, force=False)
        hear_of(clients, REPLIES)
        after = sessions(guests)
        assert {name for name in before if before[name] != after[name]} == {alone.name}
        protect(alone)
        wait_protected(host=alone.home, guest=alone.name)
        for host in HOSTS:
            print(f"{host}\n{usage(host)}", flush=True)
        print("\n".join(costs(guests)), flush=True)
        die(HOSTS[0], guests=[guest.name for guest in ours])
        for guest in ours:
            take_over(guest=guest.name)
        for guest in theirs:  # without a witness an operator says that they may go on without a backup
            agent.ask(guest.home, "unprotect", timeout=300, domain=guest.name, force=True)
        hear_of(clients, REPLIES)
        running_now = on(HOSTS[1], "xl list").split()
        assert [guest.name for guest in guests if guest.name not in running_now] == []
        proofs = {}
        for name, client in clients.items():
            client.stop()
            proofs[name] = client.judge()
    assert {name: proof["verdict"] for name, proof in proofs.items()} == dict.fromkeys(proofs, "kept")


def hear_of(clients: dict[str, Load], replies: int) -> None:
    """Wait until each client has got so many replies more; they wait at the same time."""
    before = {name: client.acknowledged() for name, client in clients.items()}

    def behind() -> list[str]:
        ended = {
            name: client.process.returncode for name, client in clients.items() if client.process.poll() is not None
        }
        assert not ended, f"clients have ended by themselves: {ended}"
        return [name for name, client in clients.items() if client.acknowledged() < before[name] + replies]

    until(f"{replies} more replies for each client", behind, lambda names: not names, timeout=PATIENCE)


def costs(guests: Sequence[SmallGuest]) -> list[str]:
    """What each guest's protection costs either host, and what each agent spends for all of them together."""
    lines = []
    for guest in guests:
        for host, part in ((guest.home, "checkpoints"), (guest.peer, "copy")):
            cost = known(f"what {guest.name} costs {host}", host, "status", "cost", domain=guest.name)
            assert part in [each["part"] for each in cost["parts"]], f"{guest.name} on {host}: {cost}"
            assert cost["cpu_seconds"] > 0, f"{guest.name} on {host}: {cost}"
            assert cost["memory_bytes"] > 0, f"{guest.name} on {host}: {cost}"
            lines += [priced(guest.name, host, each["part"], each) for each in cost["parts"]]
    shared = {host: known(f"what {host} shares", host, "agent", "shared_cost") for host in HOSTS}
    return lines + [priced("all", host, "shared", cost) for host, cost in shared.items()]


def known(what: str, host: str, method: str, field: str, **params: Any) -> dict[str, Any]:
    """What an agent says of costs. It does not know them while its kernel takes long to answer, as that of a busy host may."""
    return until(what, lambda: agent.ask(host, method, **params)[field], lambda cost: cost is not None, timeout=120)


def priced(guest: str, host: str, part: str, cost: dict[str, Any]) -> str:
    """One line of the table."""
    return f"{guest:10} {host:6} {part:12} {cost['cpu_seconds']:8.2f} s  {cost['memory_bytes'] / (1 << 20):7.1f} MiB"


def usage(host: str) -> str:
    """What the pair costs a host: Xen's own figures of its domains, and memory and processor time of the agent's processes."""
    return on(host, "remusctl list; xl list; systemctl show remus-agent.service -p MemoryCurrent -p CPUUsageNSec")
