"""The adapter against a real fence agent: fence_dummy of Debian's fence agents, whose host is a file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fence_agents import fence_agent

from remus_agent.adapters.clock import SystemClock
from remus_agent.adapters.fence.agents import FenceAgents
from remus_agent.errors import FencingError
from remus_agent.fence_config import FenceAgent
from remus_agent.fence_ports import Power


def agents(state: Path, **options: str) -> FenceAgents:
    agent = FenceAgent(
        fence_agent("fence_dummy"), {"status_file": str(state), "power_wait": "0", **options}, timeout=30.0
    )
    return FenceAgents({"beta": agent}, SystemClock(), pause=0.1)


def test_off_is_seen_by_status(tmp_path: Path) -> None:
    state = tmp_path / "beta"
    state.write_text("on")
    fencing = agents(state)
    assert asyncio.run(fencing.status("beta")) is Power.ON
    assert asyncio.run(fencing.fence("beta")).confirmed
    assert asyncio.run(fencing.status("beta")) is Power.OFF
    assert state.read_text().strip() == "off"
    assert asyncio.run(fencing.fence("beta")).confirmed, "a host that is off already"


def test_a_check_knows_its_options_and_switches_nothing(tmp_path: Path) -> None:
    state = tmp_path / "beta"
    state.write_text("on")
    found = asyncio.run(agents(state, ip_address="192.0.2.1").check("beta"))
    assert (found.power, found.unknown_options) == (Power.ON, ("ip_address",))
    assert asyncio.run(agents(state).check("beta")).unknown_options == ()
    assert state.read_text() == "on"


def test_what_it_complains_of_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FencingError, match=r"fence_dummy ended with 1"):
        asyncio.run(agents(tmp_path / "beta", type="fail", power_timeout="1").fence("beta"))
