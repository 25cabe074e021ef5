"""A group shown as one domain, over a host in memory."""

from __future__ import annotations

import pytest

from remus_agent.adapters.sim.hypervisor import SimHypervisor
from remus_agent.adapters.sim.local import SimOutputs
from remus_agent.errors import DomainNotFound, OutputBufferError, RefusedError
from remus_agent.ports import Vif
from remus_agent.protocol.groups import Groups, group_uuid
from remus_agent.services.group_hypervisor import GroupHypervisor
from remus_agent.services.group_outputs import GroupOutputs

UUIDS = {"app1": "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f00a1", "db1": "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f00d1"}
COPY = "shop--incoming-0123abcd"


@pytest.fixture
def inner() -> SimHypervisor:
    host = SimHypervisor("alpha")
    for name, uuid in UUIDS.items():
        host.create(name, uuid, disks=("xvda",))
    host.create("web1", "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001")
    return host


@pytest.fixture
def xen(inner: SimHypervisor) -> GroupHypervisor:
    return GroupHypervisor(inner, Groups({"shop": ("app1", "db1")}))


async def test_a_group_is_one_domain(inner: SimHypervisor, xen: GroupHypervisor) -> None:
    shop = await xen.domain("shop")
    assert (shop.name, shop.uuid, shop.memory_kib) == ("shop", group_uuid("shop", ("app1", "db1")), 128)
    assert [vif.device for vif in shop.vifs] == ["vif1.0", "vif2.0"]
    assert [vbd.vdev for vbd in shop.disks] == ["app1/xvda", "db1/xvda"]
    assert [guest.name for guest in shop.guests] == ["app1", "db1"]
    assert await xen.domain("web1") == inner.guests["web1"].domain
    assert await xen.name_of(shop.uuid) == "shop"
    assert await xen.name_of(UUIDS["db1"]) == "db1"


async def test_a_group_is_there_as_long_as_one_member_is(inner: SimHypervisor, xen: GroupHypervisor) -> None:
    whole = await xen.domain("shop")
    del inner.guests["app1"]
    part = await xen.domain("shop")
    assert part.uuid == whole.uuid
    with pytest.raises(RefusedError, match="app1 of the group is not here"):
        await xen.open_source(part)
    await xen.pause(whole)
    assert not inner.guests["db1"].running
    assert await xen.is_paused(whole)
    assert await xen.name_of(whole.uuid) == "shop"
    del inner.guests["db1"]
    assert await xen.name_of(whole.uuid) is None
    with pytest.raises(DomainNotFound, match="no member of the group is here"):
        await xen.domain("shop")
    with pytest.raises(DomainNotFound):
        await xen.pause(whole)


async def test_what_is_asked_is_done_to_all_also_to_one_that_was_started_anew(
    inner: SimHypervisor, xen: GroupHypervisor
) -> None:
    shop = await xen.domain("shop")
    del inner.guests["db1"]
    inner.create("db1", UUIDS["db1"])
    await xen.pause(shop)
    assert [inner.guests[name].running for name in ("app1", "db1", "web1")] == [False, False, True]
    await xen.unpause(shop)
    assert not await xen.is_paused(shop)
    inner.guests["db1"].suspended = True
    assert await xen.resume(shop)
    assert not await xen.resume(shop)
    assert await xen.destroy("shop")
    assert [*inner.guests] == ["web1"]
    assert not await xen.destroy("shop")


async def test_what_is_asked_is_done_to_one_that_came_later_as_well(inner: SimHypervisor, xen: GroupHypervisor) -> None:
    db = inner.guests.pop("db1")
    shop = await xen.domain("shop")
    inner.guests["db1"] = db
    await xen.pause(shop)
    assert [inner.guests[name].running for name in ("app1", "db1")] == [False, False]


async def test_one_that_runs_means_that_the_group_has_begun_to_run(inner: SimHypervisor, xen: GroupHypervisor) -> None:
    shop = await xen.domain("shop")
    inner.guests["app1"].running = False
    assert not await xen.is_paused(shop)


async def test_a_copy_that_got_only_some_of_its_names(inner: SimHypervisor, xen: GroupHypervisor) -> None:
    inner.guests.clear()
    inner.create("app1", UUIDS["app1"])
    inner.create(f"db1--of-{COPY}", UUIDS["db1"])
    assert await xen.names() == {"app1", COPY}
    found = await xen.domain(COPY)
    assert (found.name, found.uuid) == (COPY, group_uuid("shop", ("app1", "db1")))
    named = await xen.rename(found, "shop")
    assert [guest.name for guest in named.guests] == ["app1", "db1"]
    assert sorted(inner.guests) == ["app1", "db1"]


async def test_the_copies_of_all_members_are_swept_as_one(inner: SimHypervisor, xen: GroupHypervisor) -> None:
    for name, uuid in UUIDS.items():
        inner.create(f"{name}--of-{COPY}", uuid)
    assert COPY in await xen.names()
    assert await xen.destroy(COPY)
    assert sorted(inner.guests) == ["app1", "db1", "web1"]


async def test_a_device_of_one_member_shows_while_another_one_is_on_its_way_out(
    inner: SimHypervisor, xen: GroupHypervisor
) -> None:
    shop = await xen.domain("shop")
    inner.guests["app1"].attach(Vif(1, "vif1.1", "00:16:3e:00:00:77", "br0"))
    inner.guests["db1"].running = False
    now = await xen.devices(shop)
    assert now is not None
    assert [vif.device for vif in now.vifs] == ["vif1.0", "vif1.1", "vif2.0"]
    inner.guests["app1"].running = False
    assert await xen.devices(shop) is None


async def test_a_group_that_is_called_as_a_guest(inner: SimHypervisor, xen: GroupHypervisor) -> None:
    inner.create("shop", "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f00ff")
    with pytest.raises(RefusedError, match="name of a group and of a guest"):
        await xen.domain("shop")


async def test_the_output_of_all_members(inner: SimHypervisor, xen: GroupHypervisor) -> None:
    plugs = SimOutputs()
    shop = await xen.domain("shop")
    output = GroupOutputs(plugs).of(shop, 1000)
    await output.install(closed=True)
    for name in UUIDS:
        plugs.by_name[name].emit(f"{name} 1")
    output.barrier()
    for name in UUIDS:
        plugs.by_name[name].emit(f"{name} 2")
    assert (await output.state()).held_packets == 4
    await output.release()
    assert [plugs.by_name[name].out for name in UUIDS] == [["app1 1"], ["db1 1"]]
    plugs.by_name["app1"].stuck = True
    with pytest.raises(OutputBufferError, match="stuck"):
        await output.remove()
    assert plugs.by_name["db1"].out == ["db1 1", "db1 2"], "one that is stuck keeps no other one"


async def test_a_member_that_comes_later_is_held_as_well(inner: SimHypervisor, xen: GroupHypervisor) -> None:
    plugs = SimOutputs()
    db = inner.guests.pop("db1")
    output = GroupOutputs(plugs).of(await xen.domain("shop"), 1000)
    assert [*plugs.by_name] == ["app1"]
    inner.guests["db1"] = db
    output.follow(await xen.domain("shop"))
    await output.install(closed=True)
    plugs.by_name["db1"].emit("db1 1")
    assert plugs.by_name["db1"].out == []
