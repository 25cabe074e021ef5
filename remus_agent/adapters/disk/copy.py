"""One disk of one domain on its backup, in blocking calls: the order of writes and flushes that a crash may not break.

    stage(n)   device flushed, if seeded to; slot written, journal flushed
    (commit record of n durable)
    apply(n)   device written, device flushed
    stage(n+2) may overwrite the slot of n

An error of a device or a journal in the middle of that leaves it unknown how much was written: the disk then refuses
everything until it is opened again, which repairs it from the journal.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from uuid import UUID

from xxhash import xxh3_128_digest

from remus_agent.adapters.disk.block_file import BOUNCE_BYTES, BlockFile
from remus_agent.adapters.disk.failures import Place
from remus_agent.adapters.disk.identity import Match, compare
from remus_agent.adapters.disk.recovery import MISSING, OTHER_DEVICE, decide
from remus_agent.adapters.disk.slots import DiskJournal, Standing
from remus_agent.adapters.disk.writing import misfit, write_extents
from remus_agent.disk_ports import DiskFacts
from remus_agent.errors import DiskError, JournalError
from remus_agent.faults import FaultName, active
from remus_agent.protocol.disk.operations import Extent
from remus_agent.protocol.disk.regions import region_bytes
from remus_agent.store_ports import CommitRecord

log = logging.getLogger(__name__)

_NOT_THE_SAME = {
    Match.OTHER: f"{OTHER_DEVICE}; the next session copies all of it",
    Match.UNKNOWN: "whether its device is still the one that its journal was written for is not known: the next session "
    "compares all of it",
}
_REOPEN = "end the session and open the disk again: what is committed is applied again from the journal"


class DiskCopy:
    """A disk's copy over its open device and journal, which it owns. `recover` comes first. One call at a time."""

    def __init__(self, facts: DiskFacts, device: BlockFile, journal: DiskJournal, place: Place) -> None:
        self.facts = facts
        self.standing: Standing | None = None
        """What `hand_over` would activate: the committed epoch that the content is at, if it is at one."""
        self.map_id: str | None = None
        self.problem: str | None = "it was not recovered"
        """Why nothing can be activated; None when `standing` is set."""
        self._device = device
        self._journal = journal
        self._place = place
        self._session: str | None = None
        self._applied = 0
        self._staged: tuple[int, Sequence[Extent]] | None = None
        self._committed: CommitRecord | None = None
        self._dropped: int | None = None
        self._unsynced = True  # whoever had the device before may have left something in its cache
        self._dead: str | None = None
        self._released: Standing | None = None
        self.writers_seconds = 0.0
        """Processor time of threads that were there for the time of a write."""

    @property
    def capacity(self) -> int:
        """Bytes of packed extents that an epoch may have to be staged."""
        return self._journal.capacity

    @property
    def seeding(self) -> bool:
        """The content was changed without a journal, and no session has committed since."""
        return self._journal.state.seeding and self.standing is None

    def recover(self, committed: CommitRecord | None) -> None:
        """Bring the disk to the committed epoch, if it is a copy of it; say in `problem` why it is none otherwise.

        Interrupted anywhere, it does the same when called again. Raises DiskError, JournalError.
        """
        state = self._journal.state
        self._committed = committed
        match = compare(state.device, self._device.identity)
        if match is not Match.SAME and state.map_id is not None:
            log.warning("%s %s: %s", self._place.domain, self.facts.vdev, _NOT_THE_SAME[match])
        with self._changing():
            decision = decide(state, self._journal.slots(), committed, match)
            self.map_id = state.map_id if decision.map_valid else None
            self.problem = decision.problem
            if decision.problem is not None or committed is None:
                return
            goal = Standing(committed.session, committed.epoch)
            loaded = [(slot, self._journal.load(slot)) for slot in decision.replay]
            if loaded and loaded[-1][1] is None:
                log.error("%s %s: %s", self._place.domain, self.facts.vdev, MISSING)
                self.problem, self.map_id = MISSING, None
                return
            for slot, extents in loaded:
                if extents is not None:  # a damaged one before the last was applied before the last was staged
                    self._write(extents, slot.epoch)
            if loaded:
                self._flush(committed.epoch)
            if state.base != goal or state.seeding:
                self._journal.save(replace(state, base=goal, seeding=False))
        self.standing = goal

    def begin(self, map_id: str, session: str) -> None:
        """A session with this map begins. Durable when it returns."""
        self._usable()
        for name in (map_id, session):
            _check_uuid(name, self._place)
        if self._staged is not None:
            raise self._refused(f"still has epoch {self._staged[0]} staged", "apply or drop it first")
        ours = self.standing is not None and self.standing.session == session
        if not ours and self._committed is not None and self._committed.session == session:
            raise self._refused(f"cannot go on with session {session}: {self.problem}", "begin a new session")
        state = replace(
            self._journal.state,
            map_id=map_id,
            session=session,
            base=self.standing,
            seeding=self.seeding,
            handed_over=False,
            device=self._device.identity,
        )
        with self._changing():
            self._journal.save(state)
        self.map_id = map_id
        self._session = session
        self._applied = self.standing.epoch if self.standing is not None and ours else 0
        self.problem = None if self.standing is not None else f"session {session} has not committed yet"

    def seed(self, extents: Sequence[Extent]) -> None:
        """Apply at once. The first call marks the disk durably before anything is changed."""
        self._usable()
        late = bool(self._applied) or self._staged is not None
        if self._session is None or (late and not active(FaultName.DISK_APPLY_ON_RECEIPT)):
            raise self._refused("can be seeded only from the beginning of a session to its first epoch")
        self._check(extents, None)
        with self._changing():
            if not self._journal.state.seeding and not late:
                self.standing = None
                self.problem = f"it is being seeded by session {self._session}, which has not committed yet"
                self._journal.save(replace(self._journal.state, base=None, seeding=True))
            self._unsynced = True
            self._write(extents, None)

    def stage(self, epoch: int, extents: Sequence[Extent]) -> None:
        """Make an epoch durable in the journal. The extents' data must stay as it is until `apply` or `drop`."""
        self._usable()
        if self._session is None:
            raise self._refused("has no session", epoch=epoch)
        if self._staged is not None:
            raise self._refused(f"still has epoch {self._staged[0]} staged", "apply it first", epoch=epoch)
        if epoch != self._applied + 1:
            raise self._refused(f"expects epoch {self._applied + 1}, not {epoch}", epoch=epoch)
        self._check(extents, epoch)
        self._journal.check(epoch, extents)
        with self._changing():
            if self._unsynced:
                self._flush(epoch)
                self._unsynced = False
            self._journal.write(self._session, epoch, extents)
        self._staged = (epoch, extents)

    def apply(self, epoch: int) -> None:
        """The staged epoch was committed: bring the device to it. Durable when it returns."""
        self._usable()
        if self._staged is None or self._staged[0] != epoch or self._session is None:
            raise self._refused("has not staged this epoch", epoch=epoch)
        with self._changing():
            self._write(self._staged[1], epoch)
            self._flush(epoch)
        self._applied = epoch
        self._staged = None
        self.standing = Standing(self._session, epoch)
        self.problem = None

    def drop(self) -> None:
        """Forget what is staged. Its slot stays as it is: whether it counts is for the commit record to say, so nothing may
        be staged over it before the disk is opened again."""
        if self._staged is not None:
            self._dropped = self._staged[0]
            self._staged = None

    def digests(self, offset: int, length: int) -> bytes:
        """xxh3_128 of each region from offset on. Raises DiskError."""
        region = region_bytes(self.facts.size)
        end = min(offset + length, self.facts.size)
        if offset % region or (end % region and end != self.facts.size) or not 0 <= offset < end:
            raise self._refused(f"has no whole regions from {offset} to {offset + length} ({region} bytes each)")
        step = max(region, BOUNCE_BYTES // region * region)
        found = bytearray()
        with self._place.doing("read", left="nothing was changed"):
            while offset < end:
                view = self._device.pread(offset, min(step, end - offset))
                for at in range(0, len(view), region):
                    found += xxh3_128_digest(view[at : at + region])
                offset += len(view)
        return bytes(found)

    @property
    def released(self) -> Standing | None:
        """What it was released at."""
        return self._released

    def release(self) -> Standing:
        """Forget the map, durably, and let go of the device; what it stands at then. Safe to call twice. Raises DiskError,
        with everything as before, when it stands at no committed epoch."""
        if self._released is not None:
            return self._released
        if self._dead is not None:
            raise self._refused(self._dead, _REOPEN)
        if self._staged is not None:
            raise self._refused(f"still has epoch {self._staged[0]} staged", "apply or drop it first")
        if self.standing is None:
            raise self._place.error(
                f"cannot be activated: {self.problem}",
                left="the disk is as before and its mapper device leads nowhere",
                hint="only a copy of a committed epoch can be activated; begin a new session to make one",
            )
        with self._changing():
            self._journal.save(
                replace(self._journal.state, map_id=None, base=self.standing, seeding=False, handed_over=True)
            )
        self.map_id = None
        self.close()
        self._released = self.standing
        return self.standing

    def give_up(self) -> None:
        """Whatever the content is at, somebody else uses it from now on: forget the map, durably, and let go of the device.
        Nothing that is in the journal is ever applied to it again."""
        self._usable()
        state = self._journal.state
        with self._changing():
            self._journal.save(replace(state, map_id=None, base=self.standing, seeding=self.seeding, handed_over=True))
        self.map_id = None
        self.close()

    def close(self) -> None:
        """Let go of device and journal. Safe to call twice."""
        self._dead = "is closed"
        self._device.close()
        self._journal.close()

    def _write(self, extents: Sequence[Extent], epoch: int | None) -> None:
        left = "part of the epoch is on the device; the journal still holds all of it" if epoch else "seeding has ended"
        with self._place.doing("written", epoch=epoch, left=left):
            self.writers_seconds += write_extents(self._device, extents)

    def _flush(self, epoch: int) -> None:
        with self._place.doing("made durable", epoch=epoch, left="the journal still holds what was committed"):
            self._device.fdatasync()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """After an error in the middle of a change, refuse everything until the disk is opened again."""
        try:
            yield
        except (DiskError, JournalError):
            self._dead = "failed before and was not opened again since"
            raise

    def _usable(self) -> None:
        if self._dead is not None:
            raise self._refused(self._dead, _REOPEN)
        if self._dropped is not None:
            raise self._refused(f"has dropped epoch {self._dropped}", _REOPEN)

    def _check(self, extents: Sequence[Extent], epoch: int | None) -> None:
        wrong = misfit(extents, self.facts)
        if wrong is not None:
            raise self._refused(f"was sent what does not fit it: {wrong}", epoch=epoch)

    def _refused(self, message: str, hint: str | None = None, *, epoch: int | None = None) -> DiskError | JournalError:
        return self._place.error(message, epoch=epoch, left="nothing was changed", hint=hint)


def _check_uuid(name: str, place: Place) -> None:
    try:
        good = str(UUID(name)) == name
    except ValueError:
        good = False
    if not good:
        raise place.error(
            f"cannot be used in a session: {name!r} is not a UUID with dashes", left="nothing was changed"
        )
