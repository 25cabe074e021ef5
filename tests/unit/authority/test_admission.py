"""Which primaries are let in by what the record says: a peer can name any generation."""

from __future__ import annotations

import pytest

from remus_agent.adapters.sim.local import LoopClock, SimEvents
from remus_agent.adapters.sim.witness import SimWitness
from remus_agent.errors import AnotherOwner, RefusedError
from remus_agent.machines.authority import Ownership
from remus_agent.protocol.replication.messages import Hello
from remus_agent.services.admission import admit
from remus_agent.services.authority import Authority
from tests.model.loop import run

GUEST = "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001"
BETAS = Ownership("beta", 3, "solo", None, "web1", "", "beta")


def hello(host: str, generation: int) -> Hello:
    return Hello(
        purpose="protect",
        session="0d4a3c1e-8b61-4a70-9a5b-3f1d2c4e5f60",
        generation=generation,
        domain="web1",
        uuid=GUEST,
        guest_type="pvh",
        memory_kib=4096,
        xen_version="4.20.0",
        cpu_policy="c0ffee",
        host=host,
    )


async def knowing(witness: SimWitness) -> Authority:
    """Of alpha, which has read the record."""
    authority = Authority(witness.of("alpha"), "alpha", LoopClock(), SimEvents())
    await authority.read(GUEST)
    return authority


def test_the_owner_is_let_in_without_another_question() -> None:
    async def story() -> None:
        witness = SimWitness()
        witness.write(GUEST, BETAS)
        authority = await knowing(witness)
        witness.down = True
        await admit(authority, hello("beta", 4))

    run(story())


def test_a_high_generation_makes_nobody_the_owner() -> None:
    """The guest that is paused here would be destroyed for its session."""

    async def story() -> None:
        witness = SimWitness()
        witness.write(GUEST, BETAS)
        with pytest.raises(AnotherOwner, match="beta owns the guest since generation 3; this session is of 9"):
            await admit(await knowing(witness), hello("gamma", 9))

    run(story())


def test_an_owner_that_is_not_known_yet_is_looked_up() -> None:
    async def story() -> None:
        witness = SimWitness()
        witness.write(GUEST, BETAS)
        authority = await knowing(witness)
        witness.write(GUEST, Ownership("gamma", 4, "solo", None, "web1", "", "gamma"))
        await admit(authority, hello("gamma", 5))

    run(story())


def test_an_owner_s_session_of_another_time_is_refused() -> None:
    async def story() -> None:
        witness = SimWitness()
        witness.write(GUEST, BETAS)
        with pytest.raises(RefusedError, match="this session is of 2") as refused:
            await admit(await knowing(witness), hello("beta", 2))
        assert not isinstance(refused.value, AnotherOwner)

    run(story())


def test_where_the_record_is_lost_the_owner_that_is_known_is_let_in() -> None:
    async def story() -> None:
        witness = SimWitness()
        witness.write(GUEST, BETAS)
        authority = await knowing(witness)
        witness.lose_data()
        await admit(authority, hello("beta", 4))

    run(story())


@pytest.mark.parametrize("host", ["gamma", "alpha", "nobody"])
def test_where_the_record_is_lost_nobody_else_is_sent_away_for_good(host: str) -> None:
    """Whoever was the owner may have been followed by another one, so beta's guest may be the newest there is."""

    async def story() -> None:
        witness = SimWitness()
        if host != "nobody":
            witness.write(GUEST, Ownership(host, 3, "solo", None, "web1", "", host))
        authority = await knowing(witness)
        witness.lose_data()
        with pytest.raises(RefusedError, match="does not know that beta owned it last") as refused:
            await admit(authority, hello("beta", 4))
        assert not isinstance(refused.value, AnotherOwner)

    run(story())
