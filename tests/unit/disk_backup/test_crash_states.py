"""A crash anywhere leaves a disk that is found at exactly the committed epoch, or that refuses to be activated.

The same enumeration finds each of a number of faults that are put in on purpose: it is able to fail.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crash_states import MemoryFile, Recorder, crash_states
from disk_backup_oracle import reopen, violations
from disk_backup_world import COMMITS, DISKS, World, record

from remus_agent.adapters.disk import copy as disk_copy
from remus_agent.adapters.disk import slots
from remus_agent.adapters.disk.copy import DiskCopy
from remus_agent.adapters.disk.slots import DiskJournal
from remus_agent.adapters.journal import blocks as commits
from remus_agent.errors import DiskError


@pytest.mark.parametrize(("seed", "together"), [(1, False), (2, True)])
def test_every_crash_leaves_the_committed_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, together: bool
) -> None:
    world = World(tmp_path, seed=seed, together=together)
    record(world, monkeypatch)
    tried, wrong, oracle = violations(world)
    print(f"{tried} states, {oracle.activatable} activatable, {oracle.refused} refused")
    assert wrong == []
    assert tried > 5000
    assert oracle.activatable > 5000
    assert oracle.refused > 5000


def test_a_crash_while_a_crash_is_repaired_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, seed=3)
    record(world, monkeypatch)
    rng = random.Random(5)
    tried = 0
    for number, state in enumerate(crash_states(world.recorder.log, world.start, rng)):
        if number % 16:
            continue
        entry = commits.newest(bytes(state.files[COMMITS]))
        committed = entry.record if entry is not None else None
        for disk in DISKS:
            recorder = Recorder()
            names = (f"device-{disk.vdev}", f"journal-{disk.vdev}")
            start = {name: bytes(state.files[name]) for name in names}
            first = reopen(state.files, disk, committed, recorder)
            for broken in crash_states(recorder.log, start, rng):
                tried += 1
                again = reopen(broken.files, disk, committed)
                assert (again.standing, again.map_id) == (first.standing, first.map_id), broken.how
                assert broken.files[names[0]] == state.files[names[0]], broken.how
    print(f"{tried} states")
    assert tried > 2000


# Faults put in on purpose


class NoFlushOfJournal(MemoryFile):
    def fdatasync(self) -> None:
        if not self.name.startswith("journal"):
            super().fdatasync()


class NoFlushOfDevice(MemoryFile):
    def fdatasync(self) -> None:
        if not self.name.startswith("device"):
            super().fdatasync()


def nothing(world: World, patch: pytest.MonkeyPatch) -> None:
    pass


def apply_before_commit(world: World, patch: pytest.MonkeyPatch) -> None:
    async def early(epoch: int) -> None:
        for replica in world.replicas:
            await replica.apply(epoch)

    world.before_commit = early
    world.apply_after_commit = False


def digest_unchecked(world: World, patch: pytest.MonkeyPatch) -> None:
    class Anything:
        def __init__(self, data: bytes = b"") -> None:
            pass

        def update(self, data: bytes) -> None:
            pass

        def digest(self) -> bytes:
            return bytes(16)

    patch.setattr(slots, "xxh3_128", Anything)


def one_slot(world: World, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DiskJournal, "_at", lambda self, epoch: 2 * slots.BLOCK_BYTES)


def slot_reused_before_applied(world: World, patch: pytest.MonkeyPatch) -> None:
    """Epoch n is applied only when n+2 is already in its slot."""
    real_apply, real_stage = DiskCopy.apply, DiskCopy.stage
    waiting: dict[int, list[tuple[int, Any]]] = {}

    def apply(self: DiskCopy, epoch: int) -> None:
        assert self._staged is not None
        waiting.setdefault(id(self), []).append(self._staged)
        self._staged, self._applied = None, epoch

    def stage(self: DiskCopy, epoch: int, extents: Any) -> None:
        real_stage(self, epoch, extents)
        queue = waiting.get(id(self), [])
        if len(queue) > 1:
            now, self._staged = self._staged, queue.pop(0)
            real_apply(self, self._staged[0])
            self._staged, self._applied = now, epoch - 1

    patch.setattr(DiskCopy, "apply", apply)
    patch.setattr(DiskCopy, "stage", stage)


def seeded_data_not_flushed(world: World, patch: pytest.MonkeyPatch) -> None:
    real = DiskCopy.stage

    def stage(self: DiskCopy, epoch: int, extents: Any) -> None:
        self._unsynced = False
        real(self, epoch, extents)

    patch.setattr(DiskCopy, "stage", stage)


def _save_without(change: Callable[[slots.State], slots.State]) -> Callable[[World, pytest.MonkeyPatch], None]:
    def fault(world: World, patch: pytest.MonkeyPatch) -> None:
        real = DiskJournal.save
        patch.setattr(DiskJournal, "save", lambda self, state: real(self, change(state)))

    return fault


def seeding_marked_too_late(world: World, patch: pytest.MonkeyPatch) -> None:
    real = DiskJournal.save

    def save(self: DiskJournal, state: slots.State) -> None:
        if state.seeding and not self.state.seeding:
            self.state = state
        else:
            real(self, state)

    patch.setattr(DiskJournal, "save", save)


def base_not_kept(state: slots.State) -> slots.State:
    return dataclasses.replace(state, base=None)


def seeding_forgotten(state: slots.State) -> slots.State:
    return dataclasses.replace(state, seeding=False, base=state.base or slots.Standing(str(state.session), 1))


def handing_over_forgotten(state: slots.State) -> slots.State:
    return dataclasses.replace(state, handed_over=False)


def old_slots_applied_while_seeding(world: World, patch: pytest.MonkeyPatch) -> None:
    real = disk_copy.decide

    def decide(state: slots.State, found: Any, committed: Any, device: Any) -> Any:
        if state.seeding and committed is not None and state.session != committed.session:
            state = slots.State(state.map_id, committed.session)
        return real(state, found, committed, device)

    patch.setattr(disk_copy, "decide", decide)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (nothing, NoFlushOfJournal),
        (nothing, NoFlushOfDevice),
        (apply_before_commit, MemoryFile),
        (digest_unchecked, MemoryFile),
        (one_slot, MemoryFile),
        (slot_reused_before_applied, MemoryFile),
        (seeded_data_not_flushed, MemoryFile),
        (seeding_marked_too_late, MemoryFile),
        (old_slots_applied_while_seeding, MemoryFile),
        (_save_without(base_not_kept), MemoryFile),
        (_save_without(seeding_forgotten), MemoryFile),
        (_save_without(handing_over_forgotten), MemoryFile),
    ],
    ids=[
        "journal not flushed",
        "device not flushed",
        "applied before the commit",
        "digest unchecked",
        "one slot for all epochs",
        "slot reused before applied",
        "seeded data not flushed",
        "seeding marked too late",
        "old slots applied while seeding",
        "base not kept",
        "seeding forgotten",
        "handing over forgotten",
    ],
)
def test_a_fault_is_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[World, pytest.MonkeyPatch], None],
    kind: type[MemoryFile],
) -> None:
    world = World(tmp_path, kind)
    fault(world, monkeypatch)
    with contextlib.suppress(DiskError):  # some do not even need a crash
        record(world, monkeypatch)
    tried, wrong, _ = violations(world)
    print(f"found after {tried} states: {wrong}")
    assert wrong
