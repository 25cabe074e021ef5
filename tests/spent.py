"""What a ledger says of one guest, for tests of whoever is counted."""

from __future__ import annotations

from remus_agent.adapters.ledger import Ledger
from remus_agent.cost_ports import Account, Cost, Part


async def account(ledger: Ledger) -> Account:
    """All of it, which can be read."""
    found = await ledger.read()
    assert found is not None
    return found


async def spent(ledger: Ledger, guest: str, part: Part) -> Cost:
    """Of one part of its protection."""
    return (await account(ledger)).guests[guest][part]
