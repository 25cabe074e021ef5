"""Tables that change below a guest: what an agent that dies half-way leaves behind."""

from __future__ import annotations

import pytest
from fake_host import FakeHost

from remus_agent.adapters.disk import mapper
from remus_agent.errors import DiskError

NAME = "remus-db1-xvda"


def calls(host: FakeHost) -> list[str]:
    """Which calls of dmsetup have changed something."""
    return [call.split()[0] for call in host.changes]


async def test_a_table_is_replaced_without_a_moment_in_which_the_device_stays_suspended(host: FakeHost) -> None:
    host.mapped = {NAME: {"table": "0 8 linear 252:0 0", "open": 1}}
    await mapper.replace(NAME, "0 8 error")
    assert host.mapped[NAME]["table"] == "0 8 error"
    assert calls(host) == ["load", "resume"]


async def test_a_table_that_the_kernel_refuses_leaves_the_old_one_in_use(host: FakeHost) -> None:
    host.mapped = {NAME: {"table": "0 8 linear 252:0 0", "open": 1, "refuses": True}}
    with pytest.raises(DiskError):
        await mapper.replace(NAME, "0 8 error")
    assert host.mapped[NAME]["table"] == "0 8 linear 252:0 0"
    assert calls(host)[-2:] == ["clear", "resume"]


async def test_a_table_that_somebody_left_loaded_does_not_become_the_live_one(host: FakeHost) -> None:
    host.mapped = {NAME: {"table": "0 8 linear 252:0 0", "loaded": "0 8 error", "open": 1}}
    await mapper.cycle(NAME)
    assert host.mapped[NAME]["table"] == "0 8 linear 252:0 0"
    assert calls(host) == ["clear", "suspend", "resume"]


@pytest.mark.parametrize("table", ["0 8 linear 252:0 0", "0 8 error"])
async def test_what_is_no_raid_has_no_legs(host: FakeHost, table: str) -> None:
    host.mapped = {NAME: {"table": table, "open": 1}}
    with pytest.raises(DiskError, match="not a raid"):
        await mapper.raid_status(NAME)


async def test_what_a_raid_says_of_itself(host: FakeHost) -> None:
    host.mapped = {NAME: {"table": "0 8 raid raid1", "open": 1, "legs": "Aa"}}
    assert await mapper.raid_status(NAME) == mapper.RaidStatus("Aa", "idle", 4096, 4096)
