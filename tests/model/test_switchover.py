"""A planned move of a protected guest: what must hold when it goes well, and when either side or the link fails at any step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from remus_agent.adapters.sim.hypervisor import SimGuest
from remus_agent.adapters.sim.local import SimOutput
from remus_agent.errors import HypervisorError, JournalError, RefusedError, SwitchoverError, SwitchoverInDoubt
from remus_agent.faults import VARIABLE, FaultName
from remus_agent.machines.primary import State
from remus_agent.protocol.replication.frames import Frame, FrameType
from tests.model.loop import run
from tests.model.pair import Host, Pair, on, quiet, until
from tests.model.timeouts import Timeouts

STEPS: dict[str, Callable[[Frame], bool]] = {
    "last-epoch": lambda frame: frame.type is FrameType.EPOCH_END and frame.last,
    "hand-over": lambda frame: frame.type is FrameType.HAND_OVER,
    "outcome": lambda frame: frame.type is FrameType.OUTCOME,
}
QUIET: Timeouts = {"silence": 10.0, "ack": 10.0, "activate": 20.0, "retry": 2.0}


class Service:
    """The guest's work and its clients: it counts in its memory and tells each number. Never may two of it run, and what clients
    were told must be known to whoever runs."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.seen: list[int] = []
        self.violated: str | None = None
        self._plugs: list[tuple[str, SimOutput]] = []
        """All that there were: what a plug has let out is with the clients, also when the plug is gone."""

    def running(self) -> list[tuple[Host, SimGuest]]:
        """Where it runs."""
        found = []
        for host in (self.pair.alpha, self.pair.beta):
            guest = host.xen.guests.get("web1")
            if guest is not None and guest.running and not guest.suspended and not guest.paused_copy:
                found.append((host, guest))
        return found

    def step(self) -> None:
        """It does a bit of its work."""
        for host in (self.pair.alpha, self.pair.beta):
            plug = host.outputs.by_name.get("web1")
            if plug is not None and all(plug is not known for _, known in self._plugs):
                self._plugs.append((host.name, plug))
        running = self.running()
        if len(running) > 1:
            self.violated = self.violated or "two of it run"
        knows = max((int.from_bytes(guest.read(0, 8), "little") for _, guest in running), default=1 << 60)
        for name, plug in self._plugs:
            for frame in plug.out:
                self._hear(name, frame, knows)
            plug.out.clear()
        for host, guest in running:
            count = int.from_bytes(guest.read(0, 8), "little") + 1
            guest.write(0, count.to_bytes(8, "little"))
            plug = host.outputs.by_name.get("web1")
            if plug is None:
                self._hear(host.name, str(count), count - 1)
            else:
                plug.emit(str(count))

    def _hear(self, host: str, frame: str, knows: int) -> None:
        if self.seen and int(frame) != self.seen[-1] + 1:
            self.violated = self.violated or f"after {self.seen[-1]} {host} says {frame}"
        if int(frame) > knows + 1:
            self.violated = self.violated or f"{host} says {frame}, and who runs knows {knows}"
        self.seen.append(int(frame))

    async def live(self) -> None:
        """Work until cancelled."""
        while True:
            self.step()
            await asyncio.sleep(0.003)


async def working(disks: tuple[str, ...] = ()) -> tuple[Pair, Service, asyncio.Task[None]]:
    """A protected guest that works."""
    pair = Pair(disks, **QUIET)
    service = Service(pair)
    living = asyncio.create_task(service.live())
    await pair.protect()
    await until(lambda: len(service.seen) > 20, "replies")
    return pair, service, living


async def switch(host: Host, seconds: float = 10.0) -> dict[str, object]:
    """remusctl switchover web1."""
    return await on(host).switchover("web1", timeout=seconds, dry_run=False, generation=None, progress=quiet)


async def goes_on(service: Service, where: Host) -> None:
    """It runs there, alone, and its clients hear of it."""
    heard = len(service.seen)
    await until(lambda: len(service.seen) > heard + 20, "replies afterwards")
    assert service.violated is None, service.violated
    assert [host.name for host, _ in service.running()] == [where.name]


@pytest.mark.parametrize("disks", [(), ("xvda", "xvdb")], ids=["diskless", "disks"])
def test_ten_times_back_and_forth(disks: tuple[str, ...]) -> None:
    async def story() -> None:
        pair, service, living = await working(disks)
        here, there = pair.alpha, pair.beta
        for turn in range(10):
            if disks and turn:
                break  # where a copy becomes a guest's disk is the lab's to try
            result = await switch(here)
            assert result["to"] == there.name
            assert "web1" not in here.xen.guests
            assert here.disk.guests.get("web1") is None
            assert on(here).backup.copy_of("web1") is None
            await goes_on(service, there)
            if not disks:
                await pair.protect(there)
                await goes_on(service, there)
            here, there = there, here
        living.cancel()

    run(story())


def test_a_host_that_was_backup_and_primary_of_a_guest_lists_it_no_more_once_it_was_moved_away() -> None:
    async def story() -> None:
        pair, _, living = await working()
        await switch(pair.alpha)
        await pair.protect(pair.beta)
        await switch(pair.beta)
        await until(lambda: "web1" not in on(pair.beta)._primaries, "forgotten")
        assert await on(pair.beta).overview() == []
        assert [each.domain for each in await on(pair.alpha).overview()] == ["web1"]
        living.cancel()

    run(story())


def test_a_trial_changes_nothing_and_only_a_protected_guest_is_moved() -> None:
    async def story() -> None:
        pair, service, living = await working()
        said = await on(pair.alpha).switchover("web1", timeout=5, dry_run=True, generation=1, progress=quiet)
        assert said["to"] == "beta"
        await goes_on(service, pair.alpha)
        with pytest.raises(RefusedError, match="generation"):
            await on(pair.alpha).switchover("web1", timeout=5, dry_run=True, generation=7, progress=quiet)
        pair.network.cut()
        await until(lambda: on(pair.alpha)._primaries["web1"].state is State.SILENT, "silence")
        with pytest.raises(RefusedError, match="only a protected guest"):
            await switch(pair.alpha)
        living.cancel()

    run(story())


def test_a_last_epoch_that_takes_too_long_is_called_off() -> None:
    async def story() -> None:
        pair, service, living = await working()
        pair.network.mangler = lambda frame, data: b"" if frame.type is FrameType.EPOCH_END and frame.last else data
        with pytest.raises(SwitchoverError, match="called off"):
            await switch(pair.alpha, 3)
        pair.network.mangler = None
        await goes_on(service, pair.alpha)
        await until(lambda: on(pair.alpha)._primaries["web1"].state is State.PROTECTED, "protected again")
        await switch(pair.alpha)
        await goes_on(service, pair.beta)
        living.cancel()

    run(story())


@pytest.mark.parametrize("broken", ["note at the primary", "note at the backup", "toolstack", "supervisor"])
def test_what_is_refused_before_it_runs_there_goes_on_here(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        pair, service, living = await working()

        async def full(*_: object) -> None:
            raise JournalError("no space left")

        async def deaf(*_: object) -> None:
            raise HypervisorError("no supervisor")

        if broken == "supervisor":
            monkeypatch.setattr("remus_agent.adapters.sim.hypervisor.SimSource.leave_down", deaf)
        elif broken == "toolstack":

            def breaks(frame: Frame, data: bytes) -> bytes:
                pair.beta.xen.toolstack_fails |= frame.type is FrameType.HAND_OVER
                return data

            pair.network.mangler = breaks
        else:
            host = pair.alpha if broken == "note at the primary" else pair.beta
            monkeypatch.setattr(host.disk, "save", full)
        with pytest.raises(SwitchoverError) as caught:
            await switch(pair.alpha)
        assert not isinstance(caught.value, SwitchoverInDoubt), caught.value
        monkeypatch.undo()
        pair.network.mangler, pair.beta.xen.toolstack_fails = None, False
        await goes_on(service, pair.alpha)
        assert pair.alpha.disk.guests["web1"].handed is None
        assert "web1" not in pair.beta.disk.guests
        living.cancel()

    run(story())


Blow = Callable[[Pair], Awaitable[None]]


async def primary_dies(pair: Pair) -> None:
    await pair.kill_agent(pair.alpha)
    await pair.network.drop_all()
    await asyncio.sleep(20)
    await pair.boot(pair.alpha).resume()


async def backup_dies(pair: Pair) -> None:
    await pair.crash_backup()
    await asyncio.sleep(20)
    await pair.boot(pair.beta).resume()


async def link_is_cut(pair: Pair) -> None:
    pair.network.cut()
    await asyncio.sleep(100)
    pair.network.heal()


async def link_blinks(pair: Pair) -> None:
    pair.network.cut()
    await asyncio.sleep(3)
    pair.network.heal()


async def connections_end(pair: Pair) -> None:
    await pair.network.drop_all()


BLOWS: dict[str, Blow] = {
    "primary": primary_dies,
    "backup": backup_dies,
    "cut": link_is_cut,
    "blink": link_blinks,
    "ended": connections_end,
}


async def struck(step: str, blow: Blow, turns: int) -> None:
    """A switchover that is hit so many turns of the loop after a step was reached."""
    pair, service, living = await working()
    hit: list[asyncio.Task[None]] = []

    async def strike() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await blow(pair)

    def see(frame: Frame, data: bytes) -> bytes:
        if STEPS[step](frame) and not hit:
            hit.append(asyncio.create_task(strike()))
        return data

    pair.network.mangler = see
    asking = asyncio.create_task(switch(pair.alpha))
    await until(lambda: bool(hit), step)
    await until(hit[0].done, "the blow is over")
    hit[0].result()
    await asyncio.wait({asking}, timeout=400)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    heard = len(service.seen)
    await until(lambda: len(service.seen) > heard + 20 or service.violated is not None, "replies after the blow")
    assert service.violated is None, service.violated
    assert len(service.running()) == 1
    living.cancel()


@pytest.mark.parametrize("turns", [0, 2, 5, 13])
@pytest.mark.parametrize("blow", BLOWS)
@pytest.mark.parametrize("step", STEPS)
def test_never_two_and_nothing_lost(step: str, blow: str, turns: int) -> None:
    run(struck(step, BLOWS[blow], turns))


def test_a_backup_that_never_comes_back_leaves_it_in_doubt_until_an_operator_decides() -> None:
    async def story() -> None:
        pair, service, living = await working()
        cut: list[bool] = []

        def see(frame: Frame, data: bytes) -> bytes:
            if frame.type is FrameType.HAND_OVER and not cut:
                cut.append(True)
                pair.network.cut()
            return data

        pair.network.mangler = see
        with pytest.raises(SwitchoverInDoubt, match="has not said"):
            await switch(pair.alpha)
        assert service.running() == []
        with pytest.raises(RefusedError, match="has not said"):
            await on(pair.alpha).unprotect("web1", force=False, timeout=5, progress=quiet)
        await asyncio.sleep(100)
        assert service.running() == []
        await on(pair.alpha).unprotect("web1", force=True, timeout=60, progress=quiet)
        await goes_on(service, pair.alpha)
        living.cancel()

    run(story())


async def over_a_slow_link() -> None:
    """The backup's answer travels for long, so that there is time between its activation and the end here."""
    pair, service, living = await working()
    pair.network.delay = lambda: 0.1
    await switch(pair.alpha)
    await goes_on(service, pair.beta)
    living.cancel()


def test_a_slow_answer_is_waited_for() -> None:
    run(over_a_slow_link())


def test_its_fault_breaks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, FaultName.SWITCHOVER_RESUMES.value)
    with pytest.raises(AssertionError, match="two of it run"):
        run(over_a_slow_link())
