"""The log of a write tap under everything that happens to it, in any order.

after the commit of epoch n   the backup's disk is the primary's at barrier n: exact where writes were completed to the
                              guest, old or new where they were under way; regions not copied by then are left out
always                        a byte that differs between the local device and the backup's disk, and is neither under
                              way nor discarded, is in a marked region, and so is what the backup has durable
in the end                    once everything was copied and committed, the disks are equal and no region is marked
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tap_log_model import BLOCK, REGION, SIZE, Backup, Mask, Primary, Request, Snapshot, pattern, take

from remus_agent.errors import DiskError
from remus_agent.protocol.disk.copy_plan import CopyRun
from remus_agent.protocol.disk.operations import Op
from remus_agent.protocol.disk.regions import RegionMap, map_bytes
from remus_agent.protocol.disk.tap_log import TapLog

MAP_ID = "0d4a3c1e-8b61-4a70-9a5b-3f1d2c4e5f60"
LIMIT = 5 * REGION
BLOCKS = SIZE // BLOCK


class TapLogMachine(RuleBasedStateMachine):
    """A guest, its primary's tap, a link and a backup."""

    def __init__(self) -> None:
        super().__init__()
        self.primary = Primary()
        self.backup = Backup()
        self.memory = bytearray(map_bytes(SIZE))
        self.regions = RegionMap.create(self.memory, MAP_ID, SIZE)
        self.early = LIMIT
        self.log = self.new_log()
        self.session = 0  # number of the running session, 0: none
        self.sessions = 0
        self.epoch = 0
        self.based = False  # the backup's disk carries the map's identity
        self.snapshots: dict[int, Snapshot] = {}
        self.acks: list[int] = []
        self.before: list[Request] = []  # writes logged before the session began that have not landed since
        self.reads: list[tuple[CopyRun, Any, bool]] = []

    def new_log(self) -> TapLog:
        return TapLog(self.regions, BLOCK, limit=LIMIT, early=self.early)

    @initialize(early=st.sampled_from([LIMIT, 4 * BLOCK, 0]), equal=st.booleans())
    def choose(self, early: int, equal: bool) -> None:
        self.early = early
        self.log = self.new_log()
        if equal:
            self.backup.disk[:] = self.backup.durable[:] = self.primary.disk

    # the guest

    @rule(
        op=st.sampled_from([Op.WRITE, Op.WRITE, Op.WRITE, Op.ZERO, Op.DISCARD]),
        first=st.integers(0, BLOCKS - 1),
        count=st.sampled_from([1, 1, 2, 5, 16, 40]),
        order=st.sampled_from(["land log", "log land", "land", "log", ""]),
    )
    def submit(self, op: Op, first: int, count: int, order: str) -> None:
        request = self.primary.submit(op, first * BLOCK, min(count, BLOCKS - first) * BLOCK)
        if request is not None:
            for step in order.split():
                self.step(request, step)

    @precondition(lambda self: self.primary.under_way)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.primary.under_way))
        steps = ([] if request.landed else ["land"]) + (["log"] if request.logged_in is None else [])
        self.step(request, data.draw(st.sampled_from(steps)))

    def step(self, request: Request, step: str) -> None:
        if step == "land":
            self.primary.land(request)
            return
        self.log.write(request.extent)
        self.primary.logged(request, self.session)
        self.see_overflow()

    def see_overflow(self) -> None:
        if self.session and not self.log.in_session:
            assert self.log.overflowed
            with pytest.raises(DiskError, match=f"more than {LIMIT} bytes"):
                take(self.log)
            self.log.barrier(self.epoch)
            self.over()

    # sessions

    @precondition(lambda self: not self.session)
    @rule(same_base=st.booleans(), seeding=st.booleans(), other_disk=st.booleans())
    def begin(self, same_base: bool, seeding: bool, other_disk: bool) -> None:
        same_base &= self.based
        if not same_base and other_disk:
            self.backup.disk = pattern(0xDDDD, SIZE).copy()
            self.backup.durable = self.backup.disk.copy()
        self.backup.begin(seeding=seeding)
        self.log.begin(same_base=same_base)
        self.based = True
        self.sessions += 1
        self.session, self.epoch = self.sessions, 1
        self.before = [r for r in self.primary.under_way if r.logged_in is not None]

    def over(self) -> None:
        """Nobody is in the session any more. What the copier reads comes late."""
        self.session = 0
        self.snapshots.clear()
        self.acks.clear()
        self.backup.drop()

    @precondition(lambda self: self.session)
    @rule(patience=st.integers(0, 3), commit_first=st.booleans(), power=st.booleans(), at_once=st.booleans())
    def end(self, patience: int, commit_first: bool, power: bool, at_once: bool) -> None:
        if patience:
            return
        if commit_first and self.backup.ready:
            self.commit()
        if power:
            self.backup.lose_power()
        if not at_once:
            self.log.end()
            self.log.end()
            self.log.committed(self.epoch)  # an acknowledgement that comes late
        self.over()
        if at_once:
            self.begin(same_base=True, seeding=power, other_disk=False)

    @rule(patience=st.integers(0, 3), again=st.booleans())
    def kill(self, patience: int, again: bool) -> None:
        """The tap's process is gone. again: writes that were logged and not completed are sent to the tap once more."""
        if patience:
            return
        self.regions = RegionMap.open(self.memory, SIZE)
        self.log = self.new_log()
        self.over()
        self.sessions = 0
        self.reads.clear()
        for request in self.primary.under_way:
            if again:
                request.logged_in = None

    # epochs

    @precondition(lambda self: self.session and self.epoch - self.backup.committed <= 2)
    @rule()
    def barrier(self) -> None:
        self.snapshots[self.epoch] = Snapshot(self.primary, self.uncopied())
        self.log.barrier(self.epoch)
        self.epoch += 1

    def uncopied(self) -> Mask:
        session = self.log._session
        assert session is not None
        return np.repeat(session.plan.wanted, REGION)[:SIZE]

    @precondition(lambda self: self.session)
    @rule(limit=st.sampled_from([BLOCK + 16, 3 * BLOCK, 8 << 20]), count=st.integers(1, 20))
    def take(self, limit: int, count: int) -> None:
        for _ in range(count):
            piece = take(self.log, limit)
            if piece is None:
                return
            self.backup.receive(piece)

    @precondition(lambda self: self.backup.ready)
    @rule()
    def commit(self) -> None:
        epoch = self.backup.commit()
        self.snapshots.pop(epoch).check(self.backup.disk)
        self.acks.append(epoch)

    @precondition(lambda self: self.acks)
    @rule()
    def acknowledge(self) -> None:
        self.log.committed(self.acks.pop(0))

    @precondition(lambda self: self.session)
    @rule()
    def checkpoint(self) -> None:
        """What normally happens."""
        while self.epoch - self.backup.committed > 1 or self.acks:
            self.take(8 << 20, 100)
            if self.backup.ready:
                self.commit()
            while self.acks:
                self.acknowledge()
        self.barrier()
        self.take(8 << 20, 100)
        self.commit()
        self.acknowledge()

    # the copier

    @property
    def may_read(self) -> bool:
        self.before = [r for r in self.before if not r.landed]
        return bool(self.session) and not self.before

    @precondition(lambda self: self.may_read)
    @rule(limit=st.sampled_from([0, 2 * REGION, SIZE]), compare_at_once=st.booleans())
    def read(self, limit: int, compare_at_once: bool) -> None:
        run = self.log.next_copy(limit)
        if run is None:
            return
        found = self.primary.disk[run.offset : run.end].copy()
        same = compare_at_once and np.array_equal(found, self.backup.disk[run.offset : run.end])
        self.reads.append((run, found, same))

    @precondition(lambda self: self.reads)
    @rule(data=st.data(), compare=st.booleans())
    def was_read(self, data: st.DataObject, compare: bool) -> None:
        run, found, same = self.reads.pop(data.draw(st.integers(0, len(self.reads) - 1)))
        if run.session != self.session:
            with pytest.raises(DiskError):
                self.log.copied(run, found.tobytes())
            with pytest.raises(DiskError):
                self.log.same(run)
            return
        if same or (compare and np.array_equal(found, self.backup.disk[run.offset : run.end])):
            self.log.same(run)
        else:
            self.log.copied(run, found.tobytes())
        self.see_overflow()

    # what must hold

    @invariant()
    def what_differs_is_marked(self) -> None:
        if not self.based:
            return
        certain = ~self.primary.uncertain & ~np.repeat(self.regions.flags(), REGION)[:SIZE]
        for name, disk in (("disk", self.backup.disk), ("durable content", self.backup.durable)):
            wrong = np.flatnonzero((disk != self.primary.disk) & certain)
            assert not len(wrong), f"the backup's {name} differs in block {wrong[0] // BLOCK}, which is not marked"

    @invariant()
    def figures(self) -> None:
        assert 0 <= self.log.pressure <= 1
        assert self.log.waiting <= LIMIT
        assert self.log.in_session == bool(self.session)
        progress = self.log.progress
        assert 0 <= progress.sent <= progress.done <= progress.total <= SIZE
        assert not self.log.in_session or self.log.copying == (progress.done < progress.total)

    def teardown(self) -> None:
        """With a backup that listens, it all comes to an end."""
        for request in list(self.primary.under_way):
            if not request.landed:
                self.step(request, "land")
            if request.logged_in is None:
                self.step(request, "log")
        if not self.session:
            self.begin(same_base=True, seeding=False, other_disk=False)
        while self.reads:
            run, found, _ = self.reads.pop()
            if run.session == self.session:
                self.log.copied(run, found.tobytes())
                self.see_overflow()
        if not self.session:
            self.begin(same_base=True, seeding=False, other_disk=False)
        for _ in range(100):
            while (piece := take(self.log)) is not None:
                self.backup.receive(piece)
            if self.backup.ready:
                self.commit()
                self.acknowledge()
                continue
            if self.log.waiting == 0 and (run := self.log.next_copy()) is not None:
                self.log.copied(run, self.primary.disk[run.offset : run.end].tobytes())
                continue
            if self.log.waiting == 0 and self.regions.count == 0:
                break
            self.barrier()
        assert self.regions.count == 0
        assert not self.log.copying
        same = (self.primary.disk == self.backup.disk) | self.primary.undefined
        assert same.all()


TestTapLogMachine = TapLogMachine.TestCase
TestTapLogMachine.settings = settings(max_examples=200, stateful_step_count=40)
