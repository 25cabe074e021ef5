"""`remus-disks release`: what it does to a copy, and when it does nothing."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_host import FakeHost
from terminal import TerminalText

from remus_agent import disks
from remus_agent.adapters.disk import marker
from remus_agent.adapters.disk import release as release_module
from remus_agent.adapters.disk.layers import DiskMapping
from remus_agent.adapters.disk.replicas import FileReplicas
from remus_agent.adapters.journal.file import FileJournals
from remus_agent.disk_config import Disk, load
from remus_agent.disk_ports import DiskFacts
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.store_ports import CommitRecord

SIZE = 1024 * 1024
SESSION = "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001"
MAP = "0d4a3c1e-8b61-4a70-9a5b-3f1d2c4e5f60"
FACTS = DiskFacts("xvda", SIZE, 512)
NAME = "remus-db1-xvda"
COMMIT = CommitRecord(SESSION, 1, 1, bytes(16))
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def disk(host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(release_module, "geometry", host.geometry)
    device = tmp_path / "device"
    device.write_bytes(b"o" * SIZE)
    host.add(str(device), SIZE)
    (tmp_path / "disks.toml").write_text(
        f'[[disk]]\ndomain = "db1"\nvdev = "xvda"\ndevice = "{device}"\njournal_bytes = {4 << 20}\n'
    )
    return load(tmp_path / "disks.toml", host.state, host.run)[0]


@pytest.fixture
def run(disk: Disk, host: FakeHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        common = ["--state", str(host.state), "--disks", str(tmp_path / "disks.toml")]
        common += ["--config", str(tmp_path / "agent.toml")]
        code = disks.main(["release", NAME, *arguments, *common])
        return code, *capsys.readouterr()

    return call


async def held(disk: Disk, host: FakeHost, *, commit: bool, unit: str = "db1") -> None:
    """This host is the backup; its agent died after staging epoch 1, or while seeding."""
    replica = await FileReplicas([disk], DiskMapping([disk], host.state)).open("db1", FACTS, None)
    await replica.begin(MAP, SESSION)
    await replica.seed([Extent(Op.WRITE, 0, 512, b"s" * 512)])
    if commit:
        await replica.stage(1, [Extent(Op.WRITE, 512, 512, b"c" * 512)])
        journal = await FileJournals(host.state / "journal").open(unit)
        await journal.commit(COMMIT)
        await journal.close()
    await replica.close()


def state_of(disk: Disk, host: FakeHost) -> tuple[bool, str]:
    return marker.is_backup(host.state, disk), host.mapped[NAME]["table"].split()[2]


def test_a_committed_copy_is_made_whole_and_used(run: Run, disk: Disk, host: FakeHost) -> None:
    asyncio.run(held(disk, host, commit=True))
    assert state_of(disk, host) == (True, "error")
    code, out, err = run("--dry-run")
    assert (code, err) == (0, "")
    assert f"would be released, {NAME} on {disk.device}: last commit: epoch 1, session {SESSION}" in out
    assert state_of(disk, host) == (True, "error")
    code, out, err = run("--yes", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["disks"] == [{"name": NAME, "action": "released", "note": f"leads to {disk.device}"}]
    assert state_of(disk, host) == (False, "linear")
    assert disk.device.read_bytes()[:1536] == b"s" * 512 + b"c" * 512 + b"o" * 512
    assert run("--yes") == (0, f"{NAME}: nothing to do, it is this host's own disk\n", "")


def test_what_was_committed_with_a_group_is_made_whole(run: Run, disk: Disk, host: FakeHost, tmp_path: Path) -> None:
    """Also where its guest was protected alone before."""

    async def alone_before() -> None:
        journal = await FileJournals(host.state / "journal").open("db1")
        await journal.commit(CommitRecord("7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0002", 1, 9, bytes(16)))
        await journal.close()

    (tmp_path / "agent.toml").write_text('[groups.shop]\nmembers = ["app1", "db1"]\n')
    asyncio.run(alone_before())
    asyncio.run(held(disk, host, commit=True, unit="shop"))
    code, out, err = run("--yes", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["disks"] == [{"name": NAME, "action": "released", "note": f"leads to {disk.device}"}]
    assert disk.device.read_bytes()[:1536] == b"s" * 512 + b"c" * 512 + b"o" * 512


def test_what_is_released_is_never_taken_for_a_copy_again(run: Run, disk: Disk, host: FakeHost) -> None:
    asyncio.run(held(disk, host, commit=True))
    assert run("--yes")[0] == 0
    disk.device.write_bytes(b"g" * SIZE)

    async def again() -> tuple[str | None, str | None]:
        replica = await FileReplicas([disk], DiskMapping([disk], host.state)).open("db1", FACTS, COMMIT)
        await replica.close()
        return replica.map_id, replica.problem

    map_id, problem = asyncio.run(again())
    assert map_id is None
    assert "handed over" in str(problem)
    assert disk.device.read_bytes() == b"g" * SIZE


def test_a_copy_that_is_not_whole_is_said_to_be_none(run: Run, disk: Disk, host: FakeHost) -> None:
    asyncio.run(held(disk, host, commit=False))
    code, out, _ = run("--yes")
    assert (code, "CONTENT IS NOT WHOLE: nothing was committed" in out) == (0, True)
    assert state_of(disk, host) == (False, "linear")


@pytest.mark.parametrize("what", ["journal", "device"])
def test_an_agent_that_has_it_open_keeps_it(run: Run, disk: Disk, host: FakeHost, what: str) -> None:
    asyncio.run(held(disk, host, commit=True))
    with getattr(disk, what).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, _, err = run("--yes")
    assert code == 3
    assert "the agent holds this copy" in err
    assert "remusctl status db1" in err
    assert state_of(disk, host) == (True, "error")


def test_it_asks_first(run: Run, disk: Disk, host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(held(disk, host, commit=True))

    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert run()[0] == 2
    monkeypatch.setattr("sys.stdin", TerminalText("\n"))
    code, _, err = run()
    assert code == 3
    assert "may be older than what the guest has on the other host" in err
    assert state_of(disk, host) == (True, "error")
    monkeypatch.setattr("sys.stdin", TerminalText("y\n"))
    assert run()[0] == 0
    assert state_of(disk, host) == (False, "linear")


def test_one_in_use_and_an_unknown_one_are_refused(run: Run, disk: Disk, host: FakeHost) -> None:
    asyncio.run(held(disk, host, commit=True))
    host.use(NAME)
    code, _, err = run("--yes")
    assert (code, "has it open" in err) == (3, True)
    assert run("remus-db9-xvda", "--yes")[0] == 2
    assert state_of(disk, host) == (True, "error")
