"""When a guest counts as announced: from the first round in which nothing failed."""

from __future__ import annotations

import asyncio

import pytest

from remus_agent.adapters.net import announce
from remus_agent.adapters.net.announce import BridgeAnnouncer
from remus_agent.errors import OutputBufferError
from remus_agent.ports import Domain, GuestType, Vif

VIFS = tuple(Vif(devid, f"vif7.{devid}", f"00:16:3e:77:00:6{devid}", "xenbr0") for devid in range(2))
GUEST = Domain("web1", 7, "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001", GuestType.PVH, 1 << 17, VIFS)


class Bridge:
    """What of the kernel an announcement needs. refusals: attempts to teach it about the second interface that fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refusals: int) -> None:
        self.refusals = refusals
        self.seen: list[str] = []
        monkeypatch.setattr(announce, "_send", lambda bridge, frames: self.seen.append("sent"))
        monkeypatch.setattr(announce, "_teach_bridge", self._teach)

    def _teach(self, vif: Vif, mac: bytes) -> None:
        if vif.devid and self.refusals:
            self.refusals -= 1
            raise OutputBufferError(f"{vif.device}: not connected", operation="announce")

    async def announce(self, rounds: int) -> None:
        await BridgeAnnouncer(rounds=rounds, spacing=0).announce(GUEST, lambda: self.seen.append("told"))


def test_it_is_told_once_and_not_before_everything_was_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Bridge(monkeypatch, refusals=1)
    asyncio.run(bridge.announce(rounds=3))
    assert bridge.seen == ["sent"] * 4 + ["told"] + ["sent"] * 2


def test_it_is_never_told_when_no_round_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Bridge(monkeypatch, refusals=3)
    with pytest.raises(OutputBufferError, match=r"not everything was announced: vif7\.1: not connected"):
        asyncio.run(bridge.announce(rounds=3))
    assert bridge.seen == ["sent"] * 6
