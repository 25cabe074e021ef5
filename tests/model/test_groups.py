"""Two guests as one group, over two whole agents: one barrier, one commit, one failover, one end."""

from __future__ import annotations

import pytest

from remus_agent.errors import AlreadyProtected, GuestEnded, HypervisorError, PeerRefused, RefusedError
from remus_agent.protocol.groups import Groups, group_uuid
from tests.model.group_pair import APP, DB, GROUP, MEMBERS, OWN, GroupPair, number
from tests.model.loop import run
from tests.model.pair import DEAD, on, quiet, until

FAILOVER = {"generation": None, "session": None, "fenced": DEAD}


def test_both_members_outlive_their_host() -> None:
    async def story() -> None:
        pair = GroupPair()
        status = await pair.protect()
        assert (status.domain, status.state) == (GROUP, "protected")
        assert [(one.domain, one.memory_kib) for one in status.members] == [(APP, 64), (DB, 64)]
        await pair.run(2.0)
        assert pair.left(APP), "requests are let out"
        assert pair.left(DB), "answers are let out"
        await pair.orphan()
        status = await on(pair.beta).failover(GROUP, **FAILOVER)  # type: ignore[arg-type]
        assert status.state == "active"
        assert sorted(pair.moved()) == sorted(MEMBERS)
        assert [one.domain for one in status.members] == [APP, DB]
        await until(lambda: pair.beta.announcer.announced == [GROUP], "announced")
        moved = pair.moved()
        assert number(moved[APP], OWN) == number(moved[DB], OWN) > 0

    run(story())


def test_all_members_are_down_when_the_epoch_ends() -> None:
    """One that goes down slowly is waited for, by those that are down already."""

    async def story() -> None:
        pair = GroupPair()
        down: list[tuple[bool, bool]] = []
        pair.alpha.xen.suspends = lambda name: 0.2 if name == DB else 0.0
        await pair.protect()
        output = pair.alpha.outputs.by_name[APP]
        barrier = output.barrier

        def observed() -> None:
            down.append((pair.guests[APP].suspended, pair.guests[DB].suspended))
            barrier()

        output.barrier = observed  # type: ignore[method-assign]
        await pair.run(2.0)
        assert len(down) > 3
        assert set(down) == {(True, True)}

    run(story())


def test_a_member_that_does_not_go_down_lets_all_run_on() -> None:
    async def story() -> None:
        pair = GroupPair(suspend=1.0)
        await pair.protect()
        pair.alpha.xen.suspends = lambda name: 5.0 if name == DB else 0.0
        await until(lambda: "silent" in [event for _, event in pair.alpha.events.noted], "silent")
        status = await pair.status()
        assert "db1 did not go down within 1 s" in str(status.reason)
        assert not pair.guests[APP].suspended
        await until(lambda: not pair.guests[DB].suspended, "up")
        pair.alpha.xen.suspends = lambda _: 0.0
        await until(lambda: on(pair.alpha)._primaries[GROUP].state.value == "protected", "protected again")

    run(story())


def test_what_either_member_sends_waits_for_the_commit() -> None:
    async def story() -> None:
        pair = GroupPair()
        await pair.protect()
        await pair.run(0.5)
        pair.network.cut()
        await pair.run(0.2)
        before = {name: len(pair.left(name)) for name in MEMBERS}
        for name in MEMBERS:
            pair.emit(name, "late 9999")
        await pair.run(1.0)
        assert {name: len(pair.left(name)) for name in MEMBERS} == before
        status = await pair.status()
        assert status.held_packets >= 2
        pair.network.heal()
        await pair.run(1.0)
        for name in MEMBERS:
            assert "late 9999" in pair.left(name)

    run(story())


def test_disks_of_both_members_are_of_the_committed_epoch() -> None:
    async def story() -> None:
        pair = GroupPair({APP: ["xvda"], DB: ["xvda", "xvdb"]})
        status = await pair.protect()
        assert [disk.vdev for disk in status.disks] == ["app1/xvda", "db1/xvda", "db1/xvdb"]
        for round_ in range(20):
            for member, vdev in ((APP, "xvda"), (DB, "xvda"), (DB, "xvdb")):
                pair.volume(member, vdev).write(512 * round_, f"{member} {vdev} {round_}".encode())
            await pair.run(0.05)
        await pair.run(1.0)
        await pair.orphan()
        await on(pair.beta).failover(GROUP, **FAILOVER)  # type: ignore[arg-type]
        for member, vdev in ((APP, "xvda"), (DB, "xvda"), (DB, "xvdb")):
            assert pair.beta.stores.content(member, vdev) == bytes(pair.volume(member, vdev).content)
        assert not pair.beta.stores.violations

    run(story())


def test_nothing_is_activated_when_one_member_cannot_be_built() -> None:
    async def story() -> None:
        pair = GroupPair()
        await pair.protect()
        await pair.run(0.5)
        await pair.orphan()
        failing = next(name for name in pair.beta.xen.guests if name.startswith(DB))
        pair.beta.xen.broken.add(failing)
        with pytest.raises(HypervisorError, match="could not finish"):
            await on(pair.beta).failover(GROUP, **FAILOVER)  # type: ignore[arg-type]
        assert pair.beta.xen.guests == {}
        assert pair.beta.xen.history == []

    run(story())


def test_no_member_runs_before_all_have_their_names() -> None:
    async def story() -> None:
        pair = GroupPair()
        await pair.protect()
        await pair.run(0.5)
        await pair.orphan()
        await on(pair.beta).failover(GROUP, **FAILOVER)  # type: ignore[arg-type]
        assert [what for what, _ in pair.beta.xen.history] == ["rename", "rename", "unpause", "unpause"]

    run(story())


def test_a_member_that_ran_before_another_one_failed_is_destroyed() -> None:
    async def story() -> None:
        pair = GroupPair()
        await pair.protect()
        await pair.run(0.5)
        await pair.orphan()
        pair.beta.xen.stuck.add(DB)
        with pytest.raises(HypervisorError, match="cannot be unpaused"):
            await on(pair.beta).failover(GROUP, **FAILOVER)  # type: ignore[arg-type]
        assert pair.beta.xen.guests == {}

    run(story())


def test_a_group_moves_with_nothing_lost_and_back() -> None:
    async def story() -> None:
        pair = GroupPair()
        await pair.protect()
        await pair.run(0.5)
        await on(pair.alpha).switchover(GROUP, timeout=30, dry_run=False, generation=None, progress=quiet)
        assert sorted(pair.moved()) == sorted(MEMBERS)
        assert pair.alpha.xen.guests == {}
        status = await pair.protect(host=pair.beta)
        assert status.state == "protected"
        await on(pair.beta).switchover(GROUP, timeout=30, dry_run=False, generation=None, progress=quiet)
        assert sorted(pair.alpha.xen.guests) == sorted(MEMBERS)
        assert pair.beta.xen.guests == {}

    run(story())


def test_a_member_that_ends_ends_the_protection_in_order() -> None:
    """First the copy goes, then what the others send flows; they run on."""

    async def story() -> None:
        pair = GroupPair()
        await pair.protect()
        await pair.run(0.5)
        pair.guests[DB].ended = True
        await until(lambda: on(pair.alpha)._primaries[GROUP].finished, "over")
        status = await pair.status()
        assert status.state == "unprotected"
        assert "db1" in str(status.reason)
        assert pair.beta.xen.guests == {}
        assert pair.guests[APP].running
        assert not pair.guests[APP].suspended
        pair.emit(APP, "alone 1")
        assert "alone 1" in pair.left(APP)

    run(story())


def test_a_member_that_ends_while_the_backup_is_away_frees_nothing() -> None:
    """The copy may be activated by an operator who is right about this host: what the others send stays held."""

    async def story() -> None:
        pair = GroupPair(ack=2.0, silence=2.0, heartbeat=0.5, connect=1.0, retry=1.0)
        await pair.protect()
        await pair.run(0.5)
        pair.network.cut()
        await until(lambda: "silent" in [event for _, event in pair.alpha.events.noted], "silent")
        pair.guests[DB].ended = True
        del pair.alpha.xen.guests[DB]
        await pair.run(20.0, 0.5)
        pair.emit(APP, "alone 1")
        status = await pair.status()
        assert status.state == "silent"
        assert "alone 1" not in pair.left(APP)
        pair.network.heal()
        await pair.network.drop_all()
        await pair.run(10.0, 0.5)
        assert (await pair.status()).state == "silent"
        assert "db1 of the group is not here" in str((await pair.status()).reason)
        await on(pair.alpha).unprotect(GROUP, force=True, timeout=30, progress=quiet)
        assert "alone 1" in pair.left(APP)

    run(story())


def test_an_agent_that_dies_goes_on_with_the_group() -> None:
    async def story() -> None:
        pair = GroupPair({DB: ["xvda"]})
        await pair.protect()
        await pair.run(0.5)
        await pair.kill_agent(pair.alpha)
        await pair.network.drop_all()
        pair.emit(APP, "held 1")
        assert "held 1" not in pair.left(APP)
        agent = pair.boot(pair.alpha)
        await agent.resume()
        await until(lambda: agent._primaries[GROUP].state.value == "protected", "protected")
        assert "held 1" in pair.left(APP)

    run(story())


def test_a_group_with_other_members_in_the_configuration_is_left_alone() -> None:
    async def story() -> None:
        pair = GroupPair({DB: ["xvda"]})
        await pair.protect()
        await pair.run(0.5)
        await pair.kill_agent(pair.alpha)
        await pair.network.drop_all()
        pair.alpha.groups = Groups()
        agent = pair.boot(pair.alpha)
        await agent.resume()
        assert (GROUP, "group-changed") in pair.alpha.events.noted
        assert pair.volume(DB, "xvda").map_id is not None, "its tap stays"
        pair.emit(APP, "held 1")
        assert "held 1" not in pair.left(APP)
        assert GROUP in pair.alpha.disk.guests
        await pair.kill_agent(pair.alpha)
        pair.alpha.groups = Groups({GROUP: MEMBERS})
        agent = pair.boot(pair.alpha)
        await agent.resume()
        await until(lambda: agent._primaries[GROUP].state.value == "protected", "protected")
        assert "held 1" in pair.left(APP)

    run(story())


def test_a_guest_that_took_the_groups_name_meanwhile_keeps_no_agent_from_starting() -> None:
    async def story() -> None:
        pair = GroupPair({DB: ["xvda"]})
        await pair.protect()
        await pair.run(0.5)
        await pair.kill_agent(pair.alpha)
        await pair.network.drop_all()
        pair.alpha.xen.create(GROUP, "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f00ff")
        await pair.boot(pair.alpha).resume()
        assert (GROUP, "group-changed") in pair.alpha.events.noted
        assert GROUP in pair.alpha.disk.guests
        assert pair.volume(DB, "xvda").map_id is not None, "its tap stays"

    run(story())


def test_what_a_group_excludes_is_refused() -> None:
    async def story() -> None:
        pair = GroupPair()
        with pytest.raises(RefusedError, match="member of the group shop") as refused:
            await pair.protect(APP)
        assert refused.value.hint == "name the group instead: shop"
        await pair.protect()
        with pytest.raises(AlreadyProtected):
            await pair.protect()
        with pytest.raises(AlreadyProtected, match="as a member of shop"):
            await on(pair.alpha).reserve(APP, 10)
        with pytest.raises(RefusedError, match="a relay is of one guest"):
            await on(pair.alpha).reserve(GROUP, 10)
        with pytest.raises(RefusedError, match="member of the group shop"):
            await on(pair.alpha).unprotect(APP, force=True, timeout=5, progress=quiet)
        assert (await on(pair.alpha).status(APP)).reason == "a member of the group shop, which is protected"
        found = await on(pair.alpha).probe(APP, "beta")
        assert [reason["code"] for reason in found["reasons"]] == ["refused"]

    run(story())


def test_a_member_that_is_protected_alone_keeps_the_group_from_beginning() -> None:
    async def story() -> None:
        pair = GroupPair(groups={"alpha": Groups(), "beta": Groups()})
        await pair.protect(DB)
        await pair.kill_agent(pair.alpha)
        await pair.network.drop_all()
        for host in (pair.alpha, pair.beta):
            host.groups = Groups({GROUP: MEMBERS})
        agent = pair.boot(pair.alpha)
        await agent.resume()
        await until(lambda: agent._primaries[DB].state.value == "protected", "db1 goes on alone")
        with pytest.raises(AlreadyProtected, match="its member db1 is taken: it is protected already"):
            await pair.protect()

    run(story())


def test_a_host_that_is_the_backup_of_a_member_alone_does_not_protect_the_group() -> None:
    async def story() -> None:
        pair = GroupPair(groups={"alpha": Groups(), "beta": Groups()})
        await pair.protect(DB)
        await pair.crash_backup()
        pair.beta.groups = Groups({GROUP: MEMBERS})
        pair.boot(pair.beta)
        await until(lambda: on(pair.alpha)._primaries[DB].state.value == "protected", "db1 goes on alone")
        with pytest.raises(RefusedError, match="of its member db1: this host holds a copy of it as backup"):
            await pair.protect(host=pair.beta)

    run(story())


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (Groups(), "beta knows no group shop"),
        (Groups({GROUP: (APP, "web1")}), "the group shop is app1, db1 on alpha, and app1, web1 on beta"),
    ],
)
def test_hosts_that_know_different_groups(theirs: Groups, why: str) -> None:
    async def story() -> None:
        pair = GroupPair(groups={"beta": theirs})
        with pytest.raises(PeerRefused, match=why) as refused:
            await pair.protect()
        assert refused.value.reasons == ("group",)
        assert pair.beta.xen.guests == {}

    run(story())


def test_a_group_that_is_called_as_a_guest() -> None:
    async def story() -> None:
        pair = GroupPair()
        pair.alpha.xen.create(GROUP, "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f00ff")
        with pytest.raises(RefusedError, match="name of a group and of a guest"):
            await pair.protect()

    run(story())


def test_a_group_that_is_not_whole_is_not_protected() -> None:
    async def story() -> None:
        pair = GroupPair()
        del pair.alpha.xen.guests[DB]
        with pytest.raises(RefusedError, match="db1 of the group is not here"):
            await pair.protect()
        assert pair.alpha.disk.guests == {}

    run(story())


def test_a_member_runs_on_the_backup() -> None:
    async def story() -> None:
        pair = GroupPair()
        pair.beta.xen.create(DB, "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f00ff")
        with pytest.raises(PeerRefused, match="beta itself runs a domain db1"):
            await pair.protect()

    run(story())


def test_a_member_that_ends_right_at_the_first_checkpoint() -> None:
    async def story() -> None:
        pair = GroupPair()
        pair.guests[DB].ended = True
        with pytest.raises((GuestEnded, RefusedError)):
            await pair.protect()
        assert not pair.guests[APP].suspended

    run(story())


def test_the_identity_of_a_group() -> None:
    assert group_uuid(GROUP, (APP, DB)) == group_uuid(GROUP, (DB, APP))
    assert len({group_uuid(GROUP, MEMBERS), group_uuid("shop2", MEMBERS), group_uuid(GROUP, (APP, "db2"))}) == 3
