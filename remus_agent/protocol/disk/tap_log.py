"""What a write tap remembers of one disk: the state machine of ADR 0005's primary side, without any input or output.

Not safe for several threads: whoever uses it holds one lock around every call. The guest's writes wait for that lock, so what
takes long is left to the piece that `take` returns, which needs none.

Without a session it only tracks: a write sets the bits of its regions in the region map, and no data is kept. In a session
writes are also logged, by epoch, and so is what the copier reads of the regions that were marked when the session began.

What holds at any time, also after the process was killed: a byte in which the local device and the backup's disk differ
lies in a marked region, unless a write to it is not completed yet or it was discarded. For that

- a region is marked before `write` returns, and the write is completed only after that;
- a mark goes away only when an epoch was committed, if the region's last logged change is in that epoch or one before, and
  the region has not to be copied any more. A session that is over clears nothing.

The copier may read while writes are under way to the same place. What it read is used only where no write was logged since
the session began. A write that reaches the local device before or after the read, and is logged later, is logged over it.
There is one case that the log can't see, so its user must prevent it: a write that was logged before `begin` and reaches the
local device after the copier's read. Between `begin` and the first read, all writes that were logged before `begin` must
have been completed to the guest (`dmsetup suspend` and `resume` of the raid does that).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from remus_agent.errors import DiskError
from remus_agent.protocol.disk.copy_plan import CopyPlan, CopyRun
from remus_agent.protocol.disk.epoch_log import EpochLog
from remus_agent.protocol.disk.operations import Extent, Op
from remus_agent.protocol.disk.pieces import CopyProgress, DiskData, DiskEnd
from remus_agent.protocol.disk.regions import RegionMap
from remus_agent.protocol.disk.uncommitted import Uncommitted
from remus_agent.protocol.disk.wire import CUT_BYTES, PAYLOAD_LIMIT
from remus_agent.protocol.replication.frames import Buffer

FIRST_EPOCH: Final = 1
Packing = Callable[[], DiskData | DiskEnd]
"""Makes the piece that was taken out of a log."""


class _Session:
    """One session: the running epoch, the closed ones that were not handed out completely, and what is left to copy."""

    def __init__(self, regions: RegionMap, block: int) -> None:
        self.running = EpochLog(FIRST_EPOCH)
        self.closed: deque[EpochLog] = deque()
        self.closed_bytes = 0  # of memory, of the extents that wait in closed epochs
        self.plan = CopyPlan(regions.size, regions.region, block, regions.flags())
        self.uncommitted = Uncommitted(regions.regions)

    @property
    def waiting(self) -> int:
        return self.closed_bytes + self.running.waiting.memory


class TapLog:
    """The log of one disk.

    regions: its region map. block: bytes of a sector. limit: at most so many bytes of extents wait (EXTENT_MEMORY and data
    each; at most twice as much memory is held); when they are more, the session ends. early: when more bytes, counted alike,
    of the running epoch wait, they are handed out before it ends.
    """

    def __init__(self, regions: RegionMap, block: int, *, limit: int, early: int) -> None:
        if block <= 0 or CUT_BYTES % block or regions.size % block:
            raise DiskError(
                f"a disk of {regions.size} bytes can't have sectors of {block} bytes", operation="log writes"
            )
        self._regions = regions
        self._block = block
        self._limit = limit
        self._early = early
        self._session: _Session | None = None
        self._number = 0
        self._overflowed = False
        self._progress = CopyProgress(0, 0, 0)

    @property
    def in_session(self) -> bool:
        """Whether writes are logged; otherwise they are only tracked."""
        return self._session is not None

    @property
    def number(self) -> int:
        """Of the session, or of the last one; 0 before the first. Runs of the copier carry it."""
        return self._number

    @property
    def overflowed(self) -> bool:
        """Whether the last session was ended by the log itself, because too much was waiting."""
        return self._overflowed

    @property
    def waiting(self) -> int:
        """Bytes of memory of the extents that were not handed out yet."""
        return self._session.waiting if self._session else 0

    @property
    def pressure(self) -> float:
        """How much to delay the completion of writes: 0 until half of the limit waits, rising to 1 at the limit."""
        waiting = self.waiting
        return min(1.0, 2 * waiting / self._limit - 1) if 2 * waiting > self._limit else 0.0

    @property
    def copying(self) -> bool:
        """Whether regions are left that were neither copied nor found to be equal. An epoch that ends meanwhile does not
        make the backup's disk whole."""
        return self._session is not None and self._session.plan.left > 0

    @property
    def progress(self) -> CopyProgress:
        """How far the copier is, or was when the last session ended."""
        return self._session.plan.progress if self._session else self._progress

    def write(self, extent: Extent) -> None:
        """The guest changes its disk. When this returns the write may be completed. The data must not be changed
        afterwards. Raises DiskError, and logs nothing, for an extent that breaks the disk's bounds or sectors."""
        offset, length = extent.offset, extent.length
        if length <= 0 or (offset | length) & (self._block - 1) or not 0 <= offset <= self._regions.size - length:
            raise DiskError(
                f"{extent.op.name} of {length} bytes at {offset} does not fit a disk of {self._regions.size} bytes "
                f"with sectors of {self._block}",
                operation="log writes",
            )
        first, stop = self._regions.mark(offset, length)
        session = self._session
        if session is None:
            return
        running = session.running
        running.waiting.add(extent)
        session.uncommitted.touch(first, stop, running.epoch)
        session.plan.overwrite(offset, length)
        self._hold_limit(session)

    def begin(self, *, same_base: bool) -> None:
        """A session begins with epoch 1; one that was under way is over. same_base: the backup's disk differs only in what
        the region map names, so only that has to be copied; otherwise everything is marked and has to be copied."""
        self.end()
        if not same_base:
            self._regions.mark_all()
        self._number += 1
        self._overflowed = False
        self._session = _Session(self._regions, self._block)

    def barrier(self, epoch: int) -> None:
        """The running epoch ends; what is logged from now on belongs to the next. Does nothing after an overflow, which
        `take` reports. Raises DiskError without a session, and when another epoch is running."""
        session = self._session
        if session is None:
            if self._overflowed:
                return
            raise self._no_session()
        running = session.running
        if epoch != running.epoch:
            raise DiskError(f"epoch {running.epoch} is running", operation="end epoch", epoch=epoch)
        session.closed.append(running)
        session.closed_bytes += running.waiting.memory
        session.running = EpochLog(epoch + 1)

    def take(self, limit: int = PAYLOAD_LIMIT) -> Packing | None:
        """The next piece to send, of at most `limit` bytes and MOST_TAKEN extents, or the end of the closed epoch when all
        its pieces were handed out. Of the running epoch only when no closed one is left and more than `early` bytes wait.
        None: nothing to send.

        It is only taken out of the log here, so that writes wait for that alone. What is returned makes the piece, and needs no
        lock: it is called once, before the next `take`. Raises DiskError without a session, and after an overflow.
        """
        session = self._session
        if session is None:
            raise self._no_session()
        if session.closed:
            log = session.closed[0]
            before = log.waiting.memory
            extents = log.waiting.take(limit)
            session.closed_bytes += log.waiting.memory - before
            if not extents:
                session.closed.popleft()
                return log.end
        elif session.running.waiting.memory > self._early:
            log = session.running
            extents = log.waiting.take(limit)
        else:
            return None
        return partial(log.pack, extents)

    def committed(self, epoch: int) -> None:
        """The backup has committed the epochs up to this one. Does nothing without a session: after its end nobody knows
        which writes came later. Raises DiskError for an epoch that was not handed out completely."""
        session = self._session
        if session is None:
            return
        open_epoch = session.closed[0].epoch if session.closed else session.running.epoch
        if epoch >= open_epoch:
            raise DiskError(
                f"committed before it was sent; epoch {open_epoch} is being sent", operation="commit epoch", epoch=epoch
            )
        regions = session.uncommitted.commit(epoch)
        # What has to be copied stays marked. Copying it, or finding it equal, counts as a change in the epoch running then.
        self._regions.clear(regions[~session.plan.wanted[regions]])

    def end(self) -> None:
        """The session is over: its log is dropped, what was not committed stays marked. Safe to call twice."""
        if self._session is not None:
            self._progress = self._session.plan.progress
            self._session = None

    def next_copy(self, limit: int = 0) -> CopyRun | None:
        """What the copier is to read next from the local device: one region, or as many that follow each other as `limit`
        bytes hold. None: all were handed out; copying is over when they came back. Raises DiskError without a session."""
        if self._session is None:
            raise self._no_session()
        found = self._session.plan.next(limit)
        return None if found is None else CopyRun(self._number, *found)

    def copied(self, run: CopyRun, data: Buffer) -> None:
        """The copier has read this. What was not overwritten meanwhile is logged. The data must not be changed afterwards.
        Raises DiskError when the session that wanted it is over, and for another number of bytes than it wanted."""
        session = self._of(run)
        view = memoryview(data).cast("B")
        if len(view) != run.length:
            raise DiskError(
                f"{len(view)} bytes were read at {run.offset}, {run.length} are needed", operation="copy disk"
            )
        plan, size = session.plan, self._regions.region
        first, stop = run.offset // size, -(-run.end // size)
        for start, end in _joined([gap for region in range(first, stop) for gap in plan.missing(region)]):
            part = view[start - run.offset : end - run.offset]
            session.running.waiting.add(Extent(Op.WRITE, start, end - start, part))
            plan.sent(end - start)
        self._settle(session, first, stop)
        self._hold_limit(session)

    def same(self, run: CopyRun) -> None:
        """What the copier read equals the backup's disk, so it need not travel.

        Its marks go with the epoch that is running, or a later one that holds a write to it, not at once: what the backup
        compared is durable there no sooner than the next epoch, and writes of this session may not be committed yet.
        Raises DiskError when the session that wanted it is over.
        """
        session = self._of(run)
        size = self._regions.region
        self._settle(session, run.offset // size, -(-run.end // size))

    def _settle(self, session: _Session, first: int, stop: int) -> None:
        session.plan.settle(first, stop)
        session.uncommitted.touch(first, stop, session.running.epoch)

    def _of(self, run: CopyRun) -> _Session:
        if self._session is None or run.session != self._number:
            raise DiskError("the session ended while the disk was being copied", operation="copy disk")
        return self._session

    def _hold_limit(self, session: _Session) -> None:
        if session.waiting > self._limit:
            self.end()
            self._overflowed = True

    def _no_session(self) -> DiskError:
        if self._overflowed:
            return DiskError(
                f"more than {self._limit} bytes of changes were waiting to be sent",
                operation="log writes",
                left="the session is over, the disk is only tracked",
                hint="nothing; a new session copies what changed",
            )
        return DiskError("there is no session", operation="log writes")


def _joined(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs of bytes by rising offset, those that touch each other as one."""
    joined = runs[:1]
    for start, end in runs[1:]:
        if start == joined[-1][1]:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
