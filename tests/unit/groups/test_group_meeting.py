"""Where the members of a group meet, with real threads that have their guests down."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from remus_agent.errors import GuestEnded, HypervisorError, OutputBufferError
from remus_agent.faults import VARIABLE, FaultName
from remus_agent.ports import Domain, GuestType
from remus_agent.services.group_source import GroupSource
from remus_agent.services.meeting import BrokenOffError, EpochMeeting, MembersMeeting
from remus_agent.source_ports import AtBarrier, Checkpoint, SeedRound, Timing

NAMES = ("app1", "db1")
LONG = 5.0
"""Seconds within which everything here happens, on a machine that is busy."""


def nothing() -> None:
    """A barrier."""


class ThreadedSource:
    """source_ports.Source of one guest that goes down in a thread of its own. after: what it waits for. fails: instead of going
    down. breaks: while it is copied."""

    def __init__(
        self,
        name: str,
        *,
        after: threading.Event | None = None,
        fails: Exception | None = None,
        breaks: Exception | None = None,
    ) -> None:
        self.name, self.after, self.fails, self.breaks = name, after, fails, breaks
        self.down = False
        self.was_down = threading.Event()
        self.left_down = False
        self.closed = 0
        self.begun = 0

    @property
    def preambles(self) -> list[bytes]:
        return [self.name.encode()]

    async def begin(self) -> None:
        self.begun += 1
        if self.fails is not None:
            raise self.fails

    async def seed(self) -> AsyncIterator[SeedRound]:
        for done in (8, 16):
            yield SeedRound([self.name.encode()], 8, done, 16)

    async def checkpoint(
        self, epoch: int, at_barrier: AtBarrier, timeout: float, *, stay_down: bool = False
    ) -> Checkpoint:
        return await asyncio.to_thread(self._take, epoch, at_barrier, stay_down)

    def _take(self, epoch: int, at_barrier: AtBarrier, stay_down: bool) -> Checkpoint:
        if self.after is not None:
            assert self.after.wait(LONG)
        if self.fails is not None:
            raise self.fails
        self.down = True
        self.was_down.set()
        try:
            at_barrier()
            if self.breaks is not None:
                raise self.breaks
        except BaseException:
            self.down = False
            raise
        self.down = stay_down
        return Checkpoint(epoch, 3, [[self.name.encode()]], Timing(*([5 if self.name == "db1" else 1] * 7)))

    async def leave_down(self) -> None:
        self.left_down = True

    async def close(self) -> None:
        self.closed += 1
        self.down = self.down and self.left_down


def group(*sources: ThreadedSource) -> GroupSource:
    def domain(name: str) -> Domain:
        return Domain(name, 1, "", GuestType.PVH, 64, ())

    return GroupSource([(domain(source.name), source) for source in sources])


class Sized(ThreadedSource):
    """With memory of so many pages, in pieces of four."""

    def __init__(self, name: str, pages: int, *, breaks_at: int | None = None) -> None:
        super().__init__(name)
        self.pages, self.breaks_at = pages, breaks_at

    async def seed(self) -> AsyncIterator[SeedRound]:
        for done in range(4, self.pages + 1, 4):
            if done == self.breaks_at:
                raise GuestEnded("the guest has powered off")
            yield SeedRound([self.name.encode()], 4, done, self.pages)


async def test_members_are_copied_so_that_all_end_at_the_same_time() -> None:
    pieces = [piece async for piece in group(Sized("app1", 16), Sized("db1", 48), Sized("mq1", 16)).seed()]
    last = {piece.member: number for number, piece in enumerate(pieces)}
    assert min(last.values()) >= len(pieces) - 5
    assert [piece.done for piece in pieces] == [*range(4, 81, 4)]
    assert {piece.total for piece in pieces[-1:]} == {80}


async def test_a_member_that_cannot_be_copied_ends_it_for_all() -> None:
    members: list[int] = []
    with pytest.raises(GuestEnded):
        async for piece in group(Sized("app1", 16), Sized("db1", 16, breaks_at=8)).seed():
            members.append(piece.member)
    assert len(members) < 5


async def test_the_barrier_is_taken_once_when_all_are_down() -> None:
    app = ThreadedSource("app1")
    db = ThreadedSource("db1", after=app.was_down)
    seen: list[tuple[bool, bool]] = []
    checkpoint = await group(app, db).checkpoint(4, lambda: seen.append((app.down, db.down)), LONG)
    assert seen == [(True, True)]
    assert (app.down, db.down) == (False, False)
    assert (checkpoint.epoch, checkpoint.pages, len(checkpoint.guests)) == (4, 6, 2)
    assert checkpoint.timing.down == 5, "the longest of the members'"


async def test_without_meeting_the_barrier_is_taken_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, FaultName.MEMBERS_APART.value)
    app = ThreadedSource("app1")
    taken = threading.Event()
    db = ThreadedSource("db1", after=taken)
    seen: list[tuple[bool, bool]] = []

    def barrier() -> None:
        seen.append((app.down, db.down))
        taken.set()

    await group(app, db).checkpoint(4, barrier, LONG)
    assert seen == [(True, False)]


@pytest.mark.parametrize("stay_down", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda _: ThreadedSource("db1", fails=GuestEnded("the guest has powered off")),
        lambda down: ThreadedSource("db1", after=down, fails=GuestEnded("the guest has powered off")),
        lambda _: ThreadedSource("db1", breaks=GuestEnded("it crashed while it was copied")),
    ],
)
async def test_a_member_that_fails_lets_all_run_on(
    make: Callable[[threading.Event], ThreadedSource], stay_down: bool
) -> None:
    app = ThreadedSource("app1")
    db = make(app.was_down)
    started = time.monotonic()
    with pytest.raises(GuestEnded):
        await group(app, db).checkpoint(4, nothing, 8 * LONG, stay_down=stay_down)
    assert time.monotonic() - started < LONG, "the other one was told, and did not wait in vain"
    assert (app.down, db.down) == (False, False)


async def test_a_barrier_that_fails_lets_all_run_on() -> None:
    def fail() -> None:
        raise OutputBufferError("no plug")

    app = ThreadedSource("app1")
    db = ThreadedSource("db1", after=app.was_down)
    with pytest.raises(OutputBufferError, match="no plug"):
        await group(app, db).checkpoint(4, fail, LONG)
    assert (app.down, db.down) == (False, False)


async def test_nobody_is_down_for_longer_than_the_timeout() -> None:
    awake = threading.Event()
    app, db = ThreadedSource("app1"), ThreadedSource("db1", after=awake)
    asyncio.get_running_loop().call_later(0.3, awake.set)
    started = time.monotonic()
    with pytest.raises(HypervisorError, match=r"db1 did not go down within 0\.1 s"):
        await group(app, db).checkpoint(4, lambda: pytest.fail("no barrier"), 0.1)
    assert time.monotonic() - started < LONG
    assert (app.down, db.down) == (False, False)


async def test_the_last_checkpoint_leaves_all_down() -> None:
    app, db = ThreadedSource("app1"), ThreadedSource("db1")
    source = group(app, db)
    await source.checkpoint(4, nothing, LONG, stay_down=True)
    assert (app.down, db.down) == (True, True)
    await source.leave_down()
    await source.close()
    assert (app.down, db.down) == (True, True)


async def test_what_began_is_closed_when_another_cannot_begin() -> None:
    app, db = ThreadedSource("app1"), ThreadedSource("db1", fails=HypervisorError("no log-dirty"))
    with pytest.raises(HypervisorError, match="no log-dirty"):
        await group(app, db).begin()
    assert (app.begun, app.closed) == (1, 1)


async def test_pieces_say_whose_they_are_and_how_far_all_are() -> None:
    source = group(ThreadedSource("app1"), ThreadedSource("db1"))
    assert source.preambles == [b"app1", b"db1"]
    pieces = [(piece.member, piece.done, piece.total) async for piece in source.seed()]
    assert pieces == [(0, 8, 32), (1, 16, 32), (0, 24, 32), (1, 32, 32)]


def _in_thread(meeting: MembersMeeting) -> tuple[threading.Thread, list[Any]]:
    said: list[Any] = []

    def come() -> None:
        try:
            meeting()
        except HypervisorError as error:
            said.append(error)

    thread = threading.Thread(target=come)
    thread.start()
    return thread, said


def test_who_comes_after_it_was_broken_off_is_told() -> None:
    meeting = EpochMeeting(NAMES, nothing, LONG)
    meeting.leave("app1")
    thread, said = _in_thread(meeting.of("db1"))
    thread.join(LONG)
    assert isinstance(said[0], BrokenOffError)
    assert "app1 cannot be checkpointed" in str(said[0])


def test_who_leaves_after_the_barrier_breaks_nothing_off() -> None:
    meeting = EpochMeeting(NAMES, nothing, LONG)
    threads = [_in_thread(meeting.of(name)) for name in NAMES]
    for thread, _ in threads:
        thread.join(LONG)
    meeting.leave("app1")
    assert [said for _, said in threads] == [[], []]


async def test_a_source_without_a_thread_waits_too() -> None:
    meeting = EpochMeeting(NAMES, nothing, 0.05)
    with pytest.raises(BrokenOffError, match="db1 did not go down"):
        await meeting.of("app1").arrive()
    meeting = EpochMeeting(NAMES, nothing, LONG)
    await asyncio.gather(*(meeting.of(name).arrive() for name in NAMES))
