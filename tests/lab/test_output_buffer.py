"""Guarantee 1 (output commit) and 4 (fail closed) for the output buffer, on a live guest's interface.

The adapter runs in dom0 as it runs in the agent; what leaves the host is captured outside it, behind the
host's port."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from beacon import KINDS
from lab_hosts import Guest
from output_ends import PATIENCE, QUIET, Agent, Refused, Wire, tally

pytestmark = [pytest.mark.lab, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def wire(probe_guest: Guest) -> Iterator[Wire]:
    """The wire, once the guest's beacon answers with the output open and owes no answer."""
    wire = Wire(probe_guest)
    deadline = time.monotonic() + PATIENCE
    while not any(frame["sequence"] for frame in wire.during(2)):
        assert time.monotonic() < deadline, "the guest's beacon does not answer"
        wire.send(1)
    # Requests are answered in their order: with this one all those of the loop are answered too.
    wire.send(2)
    wire.all_kinds(2)
    wire.during(QUIET)
    yield wire
    wire.close()


@pytest.fixture
def start_agent(probe_guest: Guest, package: str, wire: Wire) -> Iterator[Callable[..., Agent]]:
    """Starts agents; afterwards the interface is as it was before."""
    agents: list[Agent] = []

    def start(**facts: Any) -> Agent:
        agents.append(Agent(probe_guest, package, **facts))
        return agents[-1]

    yield start
    try:
        last = agents[-1] if agents and agents[-1].alive else Agent(probe_guest, package)
        last.do("remove")
        last.close()
    finally:
        for agent in agents:
            agent.close()
    wire.during(QUIET)


def plumbing(guest: Guest) -> str:
    """What tc and ip show of a guest's output buffer."""
    return guest.host.run(
        f"ip -br link | grep '^rb{guest.domid}[.]' || true; tc qdisc show dev {guest.vif} | grep clsact || true"
    )


def check_every_kind_is_held(agent: Agent, wire: Wire) -> None:
    agent.do("install", closed=True)
    wire.send(100)
    escaped: list[dict[str, Any]] = []
    deadline = time.monotonic() + PATIENCE
    # Every frame of the round is held or has escaped before either is judged: an emulated guest may take seconds
    # between two frames.
    while (held := agent.do("state")["held_packets"]) + len(escaped) < len(KINDS):
        assert time.monotonic() < deadline, f"the guest did not send the whole round: {held} held, {tally(escaped)}"
        escaped += wire.during(QUIET)
    wire.quiet(escaped)
    agent.do("barrier")
    wire.quiet()
    agent.do("release")
    wire.all_kinds(100)


def test_every_kind_of_frame_is_held_until_release(start_agent: Callable[..., Agent], wire: Wire) -> None:
    check_every_kind_is_held(start_agent(), wire)


def test_with_only_ipv4_held_the_check_above_fails(start_agent: Callable[..., Agent], wire: Wire) -> None:
    with pytest.raises(AssertionError, match="frames left the host although they should be held") as failure:
        check_every_kind_is_held(start_agent(fault="hold-ipv4-only"), wire)
    said = str(failure.value)
    assert all(f"('{kind}', 100)" in said for kind in ("ipv6", "arp", "vlan", "other"))
    assert "('ipv4', 100)" not in said


@pytest.mark.long
def test_epochs_are_kept_apart(start_agent: Callable[..., Agent], wire: Wire) -> None:
    agent = start_agent()
    agent.do("install", closed=True)
    wire.send(200)
    held = agent.held_at_least(len(KINDS))["held_packets"]
    for sequence in range(201, 206):
        agent.do("barrier")
        wire.send(sequence)
        agent.held_at_least(held + len(KINDS))
        agent.do("release")
        came = wire.all_kinds(sequence - 1) + wire.during(QUIET)
        assert {frame["sequence"] for frame in came} - {None} == {sequence - 1}
        held = agent.do("state")["held_packets"]
        assert held >= len(KINDS)
    assert agent.do("state")["dropped_packets"] == 0


@pytest.mark.long
def test_a_second_barrier_without_a_release_is_refused(start_agent: Callable[..., Agent], wire: Wire) -> None:
    agent = start_agent()
    agent.do("install", closed=True)
    wire.send(300)
    agent.held_at_least(len(KINDS))
    agent.do("barrier")
    with pytest.raises(Refused, match="not released"):
        agent.do("barrier")
    agent.do("release")
    wire.all_kinds(300)


@pytest.mark.long
def test_an_open_buffer_lets_frames_pass_until_the_first_barrier(start_agent: Callable[..., Agent], wire: Wire) -> None:
    agent = start_agent()
    wire.rounds(20)
    wire.until(lambda frames: len(frames) >= len(KINDS), "the beacon's rounds")
    agent.do("install", closed=False)
    came = tally(wire.during(3))
    last = max(sequence for _, sequence in came if sequence is not None)
    assert all(came[kind, last] == 1 for kind in KINDS)
    agent.do("barrier")
    wire.send(last + 100)
    agent.held_at_least(len(KINDS))
    wire.quiet()
    agent.do("release")
    wire.quiet()
    agent.do("open")
    wire.all_kinds(last + 100)


@pytest.mark.long
def test_a_killed_agent_leaves_the_buffer_closed_and_the_next_one_loses_nothing(
    start_agent: Callable[..., Agent], wire: Wire
) -> None:
    first = start_agent()
    first.do("install", closed=True)
    wire.send(400)
    first.held_at_least(len(KINDS))
    first.do("barrier")
    wire.send(401)
    first.held_at_least(2 * len(KINDS))
    first.kill()
    wire.send(402)
    wire.quiet()
    second = start_agent()
    assert second.held_at_least(3 * len(KINDS))["dropped_packets"] == 0
    second.do("install", closed=True)
    wire.send(403)
    second.held_at_least(4 * len(KINDS))
    wire.quiet()
    second.do("barrier")
    wire.send(404)
    second.held_at_least(5 * len(KINDS))
    wire.quiet()
    second.do("release")
    came = wire.all_kinds(403)
    for kind in KINDS:
        order = [frame["sequence"] for frame in came if frame["kind"] == kind]
        assert order == sorted(order)
    assert all(tally(came)[kind, sequence] == 1 for kind in KINDS for sequence in range(400, 404))
    wire.quiet()
    second.do("barrier")
    second.do("release")
    wire.all_kinds(404)


@pytest.mark.long
def test_taking_over_under_traffic_leaks_and_loses_nothing(start_agent: Callable[..., Agent], wire: Wire) -> None:
    agent = start_agent()
    agent.do("install", closed=True)
    wire.send(500)
    agent.held_at_least(len(KINDS))
    wire.rounds(60)
    for _ in range(4):
        agent.kill()
        agent = start_agent()
        agent.do("install", closed=True)
        agent.do("install", closed=True)
    agent.held_at_least(61 * len(KINDS))
    wire.quiet()
    agent.do("barrier")
    agent.do("release")
    came = wire.all_kinds(560)
    # Each kind by itself: the fair queue of the host's own port (fq_codel) may reorder kinds within a burst.
    for kind in KINDS:
        order = [frame["sequence"] for frame in came if frame["kind"] == kind]
        assert order == sorted(order)
    assert all(tally(came)[kind, sequence] == 1 for kind in KINDS for sequence in range(500, 561))


@pytest.mark.long
def test_removing_leaves_nothing_and_lets_everything_out(
    start_agent: Callable[..., Agent], wire: Wire, probe_guest: Guest
) -> None:
    agent = start_agent()
    agent.do("install", closed=True)
    assert "rb" in plumbing(probe_guest)
    assert "clsact" in plumbing(probe_guest)
    wire.send(600)
    agent.held_at_least(len(KINDS))
    agent.do("remove")
    wire.all_kinds(600)
    assert plumbing(probe_guest) == ""
    wire.send(601)
    wire.all_kinds(601)
    agent.do("remove")


@pytest.mark.long
def test_a_full_plug_drops_and_says_so(start_agent: Callable[..., Agent], wire: Wire) -> None:
    agent = start_agent(limit=300)
    agent.do("install", closed=True)
    wire.send(700)
    deadline = time.monotonic() + PATIENCE
    while agent.do("state")["dropped_packets"] == 0:
        assert time.monotonic() < deadline
    assert agent.do("state")["held_bytes"] <= 300
    wire.quiet()


@pytest.mark.long
def test_a_filter_of_another_program_ahead_is_refused(start_agent: Callable[..., Agent], probe_guest: Guest) -> None:
    vif = probe_guest.vif
    probe_guest.host.run(
        f"tc qdisc add dev {vif} clsact && tc filter add dev {vif} ingress prio 5 protocol ip matchall action ok"
    )
    try:
        with pytest.raises(Refused, match="another program at priority 5"):
            start_agent().do("install", closed=True)
        assert "rb" not in plumbing(probe_guest)
    finally:
        probe_guest.host.run(f"tc qdisc del dev {vif} clsact")


@pytest.mark.long
def test_a_guest_is_announced_on_its_bridge(start_agent: Callable[..., Agent], wire: Wire, probe_guest: Guest) -> None:
    host = probe_guest.host
    host.run(f"bridge fdb replace {probe_guest.mac} dev eth1 master dynamic")
    start_agent().do("announce", addresses=[probe_guest.address, "fd77::150"])
    came = tally(wire.during(3))
    assert came["ethertype-0x8035", None] == 5
    assert came["ethertype-0x0806", None] == 10
    assert came["ethertype-0x86dd", None] == 5
    assert f"{probe_guest.vif} master xenbr0" in host.run(f"bridge fdb show | grep {probe_guest.mac}")


@pytest.mark.long
def test_what_barrier_and_release_cost(start_agent: Callable[..., Agent], capsys: pytest.CaptureFixture[str]) -> None:
    agent = start_agent()
    agent.do("install", closed=True)
    agent.do("measure", rounds=200)
    times: dict[str, list[int]] = agent.do("measure", rounds=2000)
    for name, values in times.items():
        values.sort()
        median, tail = statistics.median(values) / 1000, values[len(values) * 99 // 100] / 1000
        with capsys.disabled():
            print(f"\n{name}: median {median:.0f} us, 99 % {tail:.0f} us, worst {values[-1] / 1000:.0f} us")
        assert median < 5000


@pytest.mark.long
def test_a_missing_module_is_told_by_its_name_and_nothing_is_left(
    start_agent: Callable[..., Agent], probe_guest: Guest
) -> None:
    host = probe_guest.host
    agent = start_agent()
    agent.do("remove")
    tried = []
    for module in ("cls_matchall", "act_mirred", "sch_ingress", "sch_plug", "ifb"):
        if host.run(f"rmmod {module} 2>/dev/null; lsmod | grep -w ^{module} || true"):
            continue  # another guest's output buffer needs it
        host.run(f"echo install {module} /bin/false >/etc/modprobe.d/remus-test.conf")
        try:
            with pytest.raises(Refused, match=f"no module {module}.*modprobe {module}"):
                agent.do("install", closed=True)
        finally:
            host.run("rm /etc/modprobe.d/remus-test.conf")
        assert plumbing(probe_guest) == ""
        tried.append(module)
    if not tried:
        pytest.skip("all modules are in use on this host")
    agent.do("install", closed=True)


@pytest.mark.long
def test_a_guest_that_was_destroyed_leaves_nothing_behind(
    start_agent: Callable[..., Agent], probe_guest: Guest, wire: Wire
) -> None:
    """The last test here: it ends the guest."""
    agent = start_agent()
    agent.do("install", closed=True)
    wire.send(900)
    agent.held_at_least(len(KINDS))
    probe_guest.host.run(f"xl destroy {probe_guest.name}")
    agent.do("barrier")
    agent.do("release")
    agent.do("remove")
    assert plumbing(probe_guest) == ""
