"""Announcing a guest on the network after a failover.

The local bridge still looks for the guest's MAC behind the port to the other host, and would not even hand
the guest what arrives there; so it is taught first. Then the frames of `protocol.announce` go out on the
bridge, a few times.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from remus_agent.adapters.net.netlink import Netlink
from remus_agent.errors import OutputBufferError, ProtocolError
from remus_agent.ports import Domain, Vif
from remus_agent.protocol import rtnl
from remus_agent.protocol.announce import announcements, mac_bytes

_ROUNDS: Final = 5
_SPACING: Final = 0.2


class BridgeAnnouncer:
    """Announces each interface of a domain on its bridge (ports.Announcer).

    addresses: the IP addresses of interfaces, by MAC, where they are known; without them the MAC alone is
    announced (RARP). rounds, spacing: how often, and after how many seconds (doubling), because a single
    frame may be lost. Not at once: nothing gets through before the guest has connected its interface, and on a host with
    few processors the guest waits for the one that this takes.
    """

    def __init__(
        self,
        addresses: Mapping[str, Sequence[IPv4Address | IPv6Address]] | None = None,
        *,
        rounds: int = _ROUNDS,
        spacing: float = _SPACING,
    ) -> None:
        self._addresses = {mac.lower(): tuple(known) for mac, known in (addresses or {}).items()}
        self._rounds = rounds
        self._spacing = spacing

    async def announce(self, domain: Domain, told: Callable[[], None]) -> None:
        """Teach the local bridge, then send, several times. Every interface is tried in every round, because a bridge
        refuses to learn an address on a port that the guest has not connected yet. told: called after the first round in
        which nothing failed. Raises OutputBufferError with what failed in the last round."""
        failed: list[str] = []
        whole = False
        for number in range(self._rounds):
            await asyncio.sleep(self._spacing * 2**number)
            failed = [why for vif in domain.vifs if (why := await self._once(vif)) is not None]
            if not failed and not whole:
                whole = True
                told()
        if failed:
            raise OutputBufferError(
                f"not everything was announced: {'; '.join(failed)}",
                operation="announce",
                domain=domain.name,
                left="the guest runs; neighbours may look for it in the old place until their caches expire",
                hint="see `ip link show type bridge` and `bridge fdb show`; let the guest send a ping itself",
            )

    async def _once(self, vif: Vif) -> str | None:
        """One round for one interface; what failed."""
        try:
            mac = mac_bytes(vif.mac)
            frames = announcements(mac, self._addresses.get(vif.mac.lower(), ()))
            await asyncio.to_thread(_send, vif.bridge, frames)
            await asyncio.to_thread(_teach_bridge, vif, mac)
        except (OutputBufferError, ProtocolError) as error:
            return error.message
        except OSError as error:
            return f"{vif.bridge}: {error.strerror}"
        return None


def _teach_bridge(vif: Vif, mac: bytes) -> None:
    try:
        index = socket.if_nametoindex(vif.device)
    except OSError as error:
        raise OutputBufferError(f"{vif.device}: {error.strerror}", operation="announce") from error
    netlink = Netlink()
    try:
        netlink.do(rtnl.fdb_learn(index, mac), "teach the bridge", vif.device)
    finally:
        netlink.close()


def _send(bridge: str, frames: list[bytes]) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC) as sock:
        sock.bind((bridge, 0))
        for frame in frames:
            sock.send(frame)
