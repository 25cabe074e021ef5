"""Judges what a crash of a backup's disks left: exactly the committed epoch, or a disk that refuses to be activated."""

from __future__ import annotations

import random
from pathlib import Path

from crash_states import JUNK, CrashState, MemoryFiles, Note, Recorder, crash_states
from disk_backup_world import COMMITS, DISKS, DOMAIN, JOURNAL_BYTES, Content, Seen, World, session_number

from remus_agent.adapters.disk.copy import DiskCopy
from remus_agent.adapters.disk.failures import Place, Role
from remus_agent.adapters.disk.slots import DiskJournal
from remus_agent.adapters.journal import blocks as commits
from remus_agent.disk_ports import DiskFacts
from remus_agent.errors import DiskError, JournalError
from remus_agent.store_ports import CommitRecord


class Oracle:
    """Judges crash states of a world's run. `check` returns what is wrong, or None."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.seen: list[Seen] = []
        latest: Seen | None = None
        for entry in [*world.recorder.log, Note(None)]:
            self.seen.append(latest)  # type: ignore[arg-type]
            if isinstance(entry, Note) and entry.what is not None:
                latest = entry.what
        self.activatable = 0
        self.refused = 0

    def check(self, state: CrashState) -> str | None:
        entry = commits.newest(bytes(state.files[COMMITS]))
        committed = entry.record if entry is not None else None
        key = (session_number(committed.session), committed.epoch) if committed is not None else None
        seen = self.seen[state.at]
        if seen.acknowledged is not None and (key is None or key < seen.acknowledged):
            return f"epoch {seen.acknowledged} was acknowledged and the commit record names {key}"
        for index, disk in enumerate(DISKS):
            wrong = self._check_disk(state, index, disk, committed, key, seen)
            if wrong is not None:
                return f"{disk.vdev}, commit {key}: {wrong}"
        return None

    def _check_disk(
        self,
        state: CrashState,
        index: int,
        disk: DiskFacts,
        committed: CommitRecord | None,
        key: tuple[int, int] | None,
        seen: Seen,
    ) -> str | None:
        found = bytes(state.files[f"device-{disk.vdev}"])
        copy = reopen(state.files, disk, committed)
        device = state.files[f"device-{disk.vdev}"]
        wrong = self._standing(copy, state, index, key, found, bytes(device))
        if wrong is None and copy.map_id is not None:
            wrong = _unnamed(copy.map_id, seen.disks[index], bytes(device))
        if wrong is not None:
            return wrong
        first = bytes(device)
        again = reopen(state.files, disk, committed)
        if (bytes(device), again.standing, again.map_id) != (first, copy.standing, copy.map_id):
            return "opening it again finds something else"
        return _after(again, state.files, disk, committed)

    def _standing(
        self, copy: DiskCopy, state: CrashState, index: int, key: tuple[int, int] | None, found: bytes, now: bytes
    ) -> str | None:
        if copy.standing is None:
            self.refused += 1
            given_up = any(isinstance(mark, tuple) and key is not None and mark[1] > key[0] for mark in state.marks)
            handed = ("handed over", key[0]) in state.marks if key is not None else False
            if key is not None and not given_up and not handed:
                return f"the committed copy is lost: {copy.problem}"
            return None if now == found else "something was applied to a disk that is no copy of the committed epoch"
        self.activatable += 1
        at = (session_number(copy.standing.session), copy.standing.epoch)
        if at != key:
            return f"it would be activated at {at}"
        differing = self.world.boundaries[at][index].differing(now)
        return f"sectors {sorted(differing)} are not those of the committed epoch" if differing else None


def _unnamed(map_id: str, seen: tuple[str, frozenset[int], Content], now: bytes) -> str | None:
    """The map that the disk carries must name every sector in which it differs from the primary's."""
    if map_id != seen[0]:
        return None
    unnamed = seen[2].differing(now) - seen[1]
    return f"sectors {sorted(unnamed)} differ and the map does not name them" if unnamed else None


def _after(copy: DiskCopy, files: dict[str, bytearray], disk: DiskFacts, committed: CommitRecord | None) -> str | None:
    """Hand it over, write to it like a guest, and open it as a backup's again."""
    try:
        copy.release()
    except DiskError as error:
        if copy.standing is not None:
            return f"not handed over: {error}"
        return None
    if copy.standing is None:
        return "handed over although it stands at no committed epoch"
    device = files[f"device-{disk.vdev}"]
    device[:] = bytes([JUNK ^ 0xFF]) * disk.size
    late = reopen(files, disk, committed)
    if late.standing is not None or late.map_id is not None or set(device) != {JUNK ^ 0xFF}:
        return "after it was handed over something was applied or can be activated"
    return None


def reopen(
    files: dict[str, bytearray], disk: DiskFacts, committed: CommitRecord | None, recorder: Recorder | None = None
) -> DiskCopy:
    """What `FileReplicas.open` does in its thread, without the thread."""
    opener = MemoryFiles(files, recorder)
    path = Path(f"journal-{disk.vdev}")
    journal = DiskJournal(opener(path, sector=4096), Place(DOMAIN, disk.vdev, path, Role.JOURNAL), disk, JOURNAL_BYTES)
    place = Place(DOMAIN, disk.vdev, Path(f"device-{disk.vdev}"), Role.DEVICE)
    copy = DiskCopy(disk, opener(place.path, sector=disk.block), journal, place)
    copy.recover(committed)
    return copy


def violations(world: World, seed: int = 7, limit: int | None = 1) -> tuple[int, list[str], Oracle]:
    """Number of crash states tried, and what is wrong in some; `limit` of those end it."""
    oracle = Oracle(world)
    wrong: list[str] = []
    tried = 0
    for state in crash_states(world.recorder.log, world.start, random.Random(seed)):
        tried += 1
        try:
            found = oracle.check(state)
        except (DiskError, JournalError) as error:
            found = f"cannot be opened: {error}"
        if found is not None:
            wrong.append(f"after {state.at} entries, {state.how}: {found}")
            if limit is not None and len(wrong) >= limit:
                break
    return tried, wrong, oracle
