"""The adapter against a program that obeys the contract of fence agents, well or badly."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from remus_agent.adapters.clock import SystemClock
from remus_agent.adapters.fence.agents import FenceAgents
from remus_agent.errors import FenceTimeout, FenceUnconfirmed, FencingError
from remus_agent.fence_config import FenceAgent
from remus_agent.fence_ports import Power

PROGRAM = Path(__file__).resolve().parents[2] / "fence_agent.py"
PASSWORD = "open sesame"
T = TypeVar("T")


class Beta:
    """A host that is a file, and the agent that switches it."""

    def __init__(self, folder: Path, behave: str = "", timeout: float = 20.0, **options: str) -> None:
        self.state = folder / "beta"
        self.state.write_text("on")
        self.secrets = folder / "secrets"
        self.secrets.write_text(f"password={PASSWORD}\n")
        self.secrets.chmod(0o600)
        given = {"state": str(self.state), **({"behave": behave} if behave else {}), **options}
        self.fencing = FenceAgents(
            {"beta": FenceAgent(PROGRAM, given, self.secrets, required=True, timeout=timeout)},
            SystemClock(),
            pause=0.05,
        )


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def test_off_is_seen_to_be_off(tmp_path: Path) -> None:
    beta = Beta(tmp_path)
    assert run(beta.fencing.status("beta")) is Power.ON
    before = time.time()
    fenced = run(beta.fencing.fence("beta"))
    assert beta.state.read_text() == "off"
    assert (fenced.host, fenced.agent, fenced.confirmed) == ("beta", "fence_agent.py", True)
    assert before - 1 <= fenced.at <= time.time() + 1
    assert set(fenced.as_dict()) == {"agent", "host", "at", "confirmed"}
    assert run(beta.fencing.status("beta")) is Power.OFF


def test_it_is_asked_until_the_host_is_off(tmp_path: Path) -> None:
    beta = Beta(tmp_path, "slow")
    assert run(beta.fencing.fence("beta")).confirmed
    assert beta.state.read_text() == "off"


def test_off_that_succeeds_without_effect_is_not_confirmed(tmp_path: Path) -> None:
    beta = Beta(tmp_path, "lies", timeout=6.0)
    with pytest.raises(FenceUnconfirmed, match="whose status says on"):
        run(beta.fencing.fence("beta"))
    assert beta.state.read_text() == "on"


def test_off_that_fails_is_no_failure_when_the_host_is_seen_off(tmp_path: Path) -> None:
    wrapper = tmp_path / "fence_complains"
    wrapper.write_text(
        '#!/bin/sh\nread first\n[ "$first" = action=status ] && exit 2\necho it is off already >&2\nexit 1\n'
    )
    wrapper.chmod(0o755)
    fencing = FenceAgents({"beta": FenceAgent(wrapper)}, SystemClock(), pause=0.05)
    assert run(fencing.fence("beta")).confirmed


def test_an_agent_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    beta = Beta(tmp_path, "hangs", timeout=6.0)
    begun = time.monotonic()
    with pytest.raises(FenceTimeout, match=r"did not end within 6 s and was killed"):
        run(beta.fencing.status("beta"))
    assert time.monotonic() - begun < 30
    for pid in map(int, Path(f"{beta.state}.pids").read_text().split()):
        assert not _lives(pid), pid


def _lives(pid: int) -> bool:
    """A child of a killed agent becomes init's, which may take a moment to bury it."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX":
                return False
        except OSError:
            return False
        time.sleep(0.05)
    return True


def test_an_agent_whose_caller_gives_up_is_killed_as_well(tmp_path: Path) -> None:
    beta = Beta(tmp_path, "hangs")
    pids = Path(f"{beta.state}.pids")

    def started() -> bool:
        return pids.exists() and len(pids.read_text().split()) == 2

    async def give_up() -> None:
        task = asyncio.create_task(beta.fencing.status("beta"))
        while not started():  # noqa: ASYNC110 - a file of another process
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(give_up())
    for pid in map(int, pids.read_text().split()):
        assert not _lives(pid), pid


def test_a_password_is_never_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    beta = Beta(tmp_path, "fails")
    with caplog.at_level(logging.DEBUG), pytest.raises(FencingError, match=r"could not log in with \*\*\*") as caught:
        run(beta.fencing.fence("beta"))
    assert PASSWORD not in str(caught.value) + caplog.text


def test_what_an_agent_says_does_not_stop_it_nor_fill_memory(tmp_path: Path) -> None:
    beta = Beta(tmp_path, "noisy")
    assert run(beta.fencing.status("beta")) is Power.ON


def test_a_changed_password_needs_no_restart(tmp_path: Path) -> None:
    beta = Beta(tmp_path)
    beta.secrets.write_text("password=old\n")
    with pytest.raises(FencingError, match="wrong password"):
        run(beta.fencing.status("beta"))
    beta.secrets.write_text(f"password={PASSWORD}\n")
    assert run(beta.fencing.status("beta")) is Power.ON
    beta.secrets.chmod(0o644)
    with pytest.raises(FencingError, match="may be read or changed by others"):
        run(beta.fencing.status("beta"))


def test_a_check_switches_nothing_and_names_options_that_the_agent_would_ignore(tmp_path: Path) -> None:
    beta = Beta(tmp_path, ipaddress="192.0.2.1")
    found = run(beta.fencing.check("beta"))
    assert (found.power, found.required, found.unknown_options) == (Power.ON, True, ("ipaddress",))
    assert beta.state.read_text() == "on"
    assert run(Beta(tmp_path).fencing.check("beta")).unknown_options == ()


def test_who_is_covered(tmp_path: Path) -> None:
    fencing = Beta(tmp_path).fencing
    assert fencing.covers("beta")
    assert fencing.required("beta")
    assert not fencing.covers("gamma")
    assert not fencing.required("gamma")
    with pytest.raises(FencingError, match="no fence agent is configured for gamma"):
        run(fencing.fence("gamma"))


def test_an_agent_that_is_not_there_is_named(tmp_path: Path) -> None:
    fencing = FenceAgents({"beta": FenceAgent(tmp_path / "fence_none")}, SystemClock())
    with pytest.raises(FencingError, match=r"fence_none cannot be run: No such file") as caught:
        run(fencing.status("beta"))
    assert "install the package" in (caught.value.hint or "")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    beta = Beta(tmp_path)

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def many() -> int:
        await beta.fencing.status("beta")
        before = descriptors()
        for _ in range(5):
            await beta.fencing.status("beta")
        await asyncio.sleep(0.1)
        return descriptors() - before

    assert run(many()) <= 0
