"""What a host tells of both: roles, paths, and the record, also while something of it can't be reached."""

from __future__ import annotations

import asyncio
from typing import Any

from remus_agent.adapters.sim.local import LoopClock
from remus_agent.errors import ConnectionLost
from remus_agent.ports import Connection
from remus_agent.services.heartbeats import HeartbeatSender
from remus_agent.services.settings import Settings
from tests.model.loop import run
from tests.model.pair import Pair, on
from tests.model.pair import until as pair_until
from tests.model.test_authority import ask, play, standing, until
from tests.model.world import GUEST, UUID, World


async def view(world: World, host: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What this host tells of its one guest, and of everything."""
    shown: dict[str, Any] = await ask(world, host, lambda agent: agent.topology())
    (guest,) = shown["guests"]
    return guest, shown


def test_both_hosts_tell_the_same_of_a_protected_guest() -> None:
    async def story(world: World) -> None:
        for host, role, there in (
            ("alpha", "primary", "backup, ready"),
            ("beta", "backup", "primary, protected"),
        ):
            guest, shown = await view(world, host)
            assert (guest["domain"], guest["uuid"], guest["generation"]) == (GUEST, UUID, 2)
            assert (guest["runs_on"], guest["backup"]) == ("alpha", "beta")
            assert (guest["here"]["host"], guest["here"]["role"]) == (host, role)
            assert guest["there"] == {"host": world.hosts[host].peer, "is": there}
            assert (guest["record"]["owner"], guest["record"]["state"], guest["record"]["current"]) == (
                "alpha",
                "protected",
                True,
            )
            (peer,) = shown["peers"].values()
            assert 0 <= peer["heard"] < 3
            assert peer["second_problem"] is None
            assert shown["witness"] == {"answers": True, "problem": None}
        assert (await view(world, "beta"))[1]["peers"]["alpha"]["second_heard"] < 3

    play(story)


def test_after_a_takeover_the_new_host_runs_it_and_hears_nobody() -> None:
    async def story(world: World) -> None:
        world.power_off(world.hosts["alpha"])
        await until(world, lambda: standing(world) == ("beta", 3, "solo", None), 6)
        await until(world, lambda: [inc.host for inc in world.running()] == ["beta"], 2)
        guest, shown = await view(world, "beta")
        assert (guest["runs_on"], guest["backup"], guest["here"]["state"]) == ("beta", None, "solo")
        assert guest["record"]["owner"] == "beta"
        await asyncio.sleep(7)
        _, shown = await view(world, "beta")
        assert shown["peers"]["alpha"]["second_heard"] is None

    play(story)


def test_why_heartbeats_do_not_get_through_is_known() -> None:
    class Nobody:
        async def connect(self, address: str, timeout: float) -> Connection:
            raise ConnectionLost(f"{address} does not answer", operation="connect")

    async def story() -> None:
        sender = HeartbeatSender(Nobody(), "beta:2", Settings(host="alpha"), LoopClock(), list)
        assert sender.problem is None
        running = asyncio.create_task(sender.run())
        await pair_until(lambda: sender.problem is not None, "it has failed")
        assert "beta:2 does not answer" in str(sender.problem)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(story())


def test_a_silent_witness_leaves_what_it_said_last() -> None:
    async def story(world: World) -> None:
        world.witness.cut.add("alpha")
        guest, shown = await view(world, "alpha")
        assert shown["witness"]["answers"] is False
        assert shown["witness"]["problem"]
        assert (guest["record"]["owner"], guest["record"]["current"]) == ("alpha", False)

    play(story)


def test_without_a_witness_there_is_no_record() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        (guest,) = (shown := await on(pair.alpha).topology())["guests"]
        assert shown["witness"] is None
        assert guest["record"] is None
        assert (guest["runs_on"], guest["backup"]) == ("alpha", "beta")
        assert shown["peers"]["beta"]["second"] is None
        await pair.kill_host()
        await pair_until(lambda: on(pair.beta).backup.copy_of("web1").state.value == "orphaned", "orphaned")  # type: ignore[union-attr]
        (guest,) = (await on(pair.beta).topology())["guests"]
        assert (guest["runs_on"], guest["here"]["state"]) == (None, "orphaned")
        assert guest["there"] == {"host": "alpha", "is": "primary, not heard"}

    run(story())
