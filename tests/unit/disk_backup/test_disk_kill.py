"""A process that applies epochs is killed at random moments; what it left is compared with an independent model."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import disk_kill_worker as worker
import pytest
from disk_backup_world import Content
from loop_device import loop_device

from remus_agent.adapters.journal.file import FileJournals
from remus_agent.errors import DiskError
from remus_agent.store_ports import CommitRecord

ROOT = Path(worker.__file__).resolve().parents[1]


def kill_once(directory: Path, device: Path, sector: int, session: int, seed: bool, rng: random.Random) -> None:
    """At any moment; in every second session not before something was committed, however slow the machine is."""
    command = [sys.executable, worker.__file__, str(directory), str(device), str(sector), str(session), str(int(seed))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for epoch in range(1, rng.randint(1, 3) + 1 if session % 2 else 1):
            assert process.stdout.readline() == b"%d\n" % epoch
        time.sleep(rng.uniform(0, 0.1))
        assert process.poll() is None, "it ended by itself"
        process.send_signal(signal.SIGKILL)


async def look(directory: Path, device: Path, sector: int) -> tuple[CommitRecord | None, bytes | None]:
    """The last commit, and the content if it could be activated."""
    journal = await FileJournals(directory / "commits").open(worker.DOMAIN)
    committed = await journal.last()
    await journal.close()
    replica = await worker.replicas(directory, device).open(worker.DOMAIN, worker.facts(sector), committed)
    standing = replica.standing
    if standing is None:
        with pytest.raises(DiskError, match="cannot be activated"):
            await replica.hand_over()
    else:
        assert committed is not None
        assert (standing.session, standing.epoch) == (committed.session, committed.epoch)
    await replica.close()
    return committed, await asyncio.to_thread(device.read_bytes) if standing is not None else None


def run(directory: Path, device: Path, sector: int, kills: int) -> list[tuple[int, int]]:
    """Kill it again and again; what was committed each time."""
    rng = random.Random(kills)
    model: Content | None = None
    known: tuple[int, int] | None = None
    found: list[tuple[int, int]] = []
    for session in range(1, kills + 1):
        seed = model is None or session % 4 == 0
        kill_once(directory, device, sector, session, seed, rng)
        committed, content = asyncio.run(look(directory, device, sector))
        now = (uuid.UUID(committed.session).int, committed.epoch) if committed is not None else None
        if now is not None and now != known:
            assert now[0] == session, "an older session's commit appeared"
            if seed:
                model = Content(bytearray(worker.SIZE), sector)
                model.apply(worker.seeded(session))
            assert model is not None
            for epoch in range(1, now[1] + 1):
                model.apply(worker.epoch_of(session, epoch, sector))
            known = now
            found.append(now)
        if content is None:
            assert seed, "a committed copy was lost"
            assert now is None or now[0] != session
            model = None
            continue
        assert model is not None
        assert model.differing(content[: worker.SIZE]) == set()
    return found


def test_killed_thirty_times_on_files(tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.write_bytes(bytes(worker.SIZE))
    found = run(tmp_path, device, 512, 30)
    print(found)
    assert len(found) >= 15


def test_killed_on_a_loop_device(tmp_path: Path) -> None:
    with loop_device(tmp_path / "backing", worker.SIZE + 4096, 4096) as device:
        found = run(tmp_path, device, 4096, 8)
    print(found)
    assert len(found) >= 4
