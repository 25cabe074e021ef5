"""The adapter, Debian's fence_ipmilan, ipmitool, and the lab's BMC: real IPMI as in the lab, to a host that is a process."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fence_agents import fence_agent
from managed_host import ManagedHost, managed

from remus_agent.adapters.clock import SystemClock
from remus_agent.adapters.fence.agents import FenceAgents
from remus_agent.errors import FencingError
from remus_agent.fence_config import FenceAgent
from remus_agent.fence_ports import Power

INVENTORY = Path(__file__).resolve().parents[2] / "inventories" / "lab_fencing" / "hosts.yml"


@pytest.fixture
def alpha(tmp_path: Path) -> Iterator[ManagedHost]:
    fence_agent("fence_ipmilan")
    yield from managed(tmp_path)


def options(alpha: ManagedHost) -> dict[str, str]:
    """Those of the lab's inventory, seen from here."""
    hosts = yaml.safe_load(INVENTORY.read_text())["all"]["children"]["xen_hosts"]
    return {**hosts["vars"]["remus_fencing"]["options"], "ip": "127.0.0.1", "ipport": str(alpha.bmc.port)}


def agents(alpha: ManagedHost, folder: Path, *, password: str | None = None) -> FenceAgents:
    secrets = folder / "fence-alpha.secrets"
    secrets.touch(mode=0o600)
    secrets.write_text(
        f"username={alpha.bmc.user.read_text()}\npassword={password or alpha.bmc.password.read_text()}\n"
    )
    agent = FenceAgent(fence_agent("fence_ipmilan"), options(alpha), secrets, required=True, timeout=60.0)
    return FenceAgents({"alpha": agent}, SystemClock(), pause=0.1)


def test_a_host_is_switched_off_and_seen_off(alpha: ManagedHost, tmp_path: Path) -> None:
    fencing = agents(alpha, tmp_path)
    assert asyncio.run(fencing.status("alpha")) is Power.ON
    fenced = asyncio.run(fencing.fence("alpha"))
    assert (fenced.host, fenced.confirmed) == ("alpha", True)
    assert not alpha.host.running()
    assert asyncio.run(fencing.status("alpha")) is Power.OFF
    assert asyncio.run(fencing.fence("alpha")).confirmed, "a host that is off already"


def test_a_check_knows_every_option_and_switches_nothing(alpha: ManagedHost, tmp_path: Path) -> None:
    before = alpha.host.record()
    found = asyncio.run(agents(alpha, tmp_path).check("alpha"))
    assert (found.power, found.required, found.unknown_options) == (Power.ON, True, ())
    assert alpha.host.record() == before
    assert alpha.host.running()


def test_it_switches_on_again(alpha: ManagedHost) -> None:
    """As an operator does, or a drill."""
    alpha.host.kill()
    access = {"username": alpha.bmc.user.read_text(), "password": alpha.bmc.password.read_text()}
    given = {"action": "on", **options(alpha), **access}
    said = subprocess.run(
        [fence_agent("fence_ipmilan")],
        input="".join(f"{key}={value}\n" for key, value in given.items()),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert alpha.host.running()


def test_a_wrong_password_is_a_failure_and_does_not_appear_in_it(alpha: ManagedHost, tmp_path: Path) -> None:
    with pytest.raises(FencingError, match="fence_ipmilan ended with 1") as failure:
        asyncio.run(agents(alpha, tmp_path, password="not-the-password").fence("alpha"))
    assert "not-the-password" not in str(failure.value)
    assert alpha.host.running()
