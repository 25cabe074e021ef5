"""A program that waits for a device which does not answer cannot be killed: who started it goes on all the same."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from remus_agent.adapters import process
from remus_agent.adapters.disk import command
from remus_agent.adapters.fence import program
from remus_agent.adapters.xen import feeder, toolstack
from remus_agent.errors import DiskError, FenceTimeout, HypervisorError
from tests.model.loop import run


class Stream:
    """A pipe on which nothing ever happens."""

    async def read(self, _: int) -> bytes:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    def write(self, _: bytes) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None: ...


class Stuck:
    """asyncio's process, in state D."""

    pid = 2**22 + 1  # more than Linux gives
    returncode = None
    stdin, stdout, stderr = Stream(), Stream(), Stream()

    def kill(self) -> None: ...

    async def wait(self) -> int:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def communicate(self) -> tuple[bytes, bytes]:
        await self.wait()
        raise AssertionError


@pytest.fixture(autouse=True)
def _stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(*_: Any, **__: Any) -> Stuck:
        return Stuck()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)


def within(seconds: float, work: Any) -> None:
    async def story() -> None:
        async with asyncio.timeout(seconds):
            await work()

    run(story())


def test_a_tool_of_disks() -> None:
    with pytest.raises(DiskError, match="took longer than 30 s"):
        within(31 + process.REAP, lambda: command.run("dmsetup", "suspend", "remus-web1-xvda"))


def test_the_toolstack() -> None:
    """What it was to do, to which guest, what is left and what to do stand in the error."""

    async def destroy() -> None:
        await toolstack.run("destroy", "7", operation="destroy the domain", domain="web1", left="it is still there")

    with pytest.raises(HypervisorError, match="xl destroy 7 took longer than 60 s") as said:
        within(61 + process.REAP, destroy)
    assert (said.value.operation, said.value.domain, said.value.left) == (
        "destroy the domain",
        "web1",
        "it is still there",
    )
    assert "dmesg" in (said.value.hint or "")


def test_a_fence_agent() -> None:
    with pytest.raises(FenceTimeout):
        within(21 + process.REAP, lambda: program.run(Path("/bin/true"), {}, 20, "off of alpha"))


def test_an_xl_that_builds_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Process:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def kill(self) -> None: ...

        def wait(self, timeout: float | None = None) -> int:
            assert timeout is not None, "for ever"
            raise subprocess.TimeoutExpired("xl", timeout)

    monkeypatch.setattr(subprocess, "Popen", Process)
    with pytest.raises(HypervisorError, match="does not end"):
        feeder.Feeder("web1--incoming-00000000", 1.0).abort()
