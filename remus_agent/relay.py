"""The composition root of `remusctl stream send`: picks the adapters and runs one relay until it ends or is told to."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import msgspec

from remus_agent import config
from remus_agent.adapters.clock import SystemClock
from remus_agent.adapters.descriptor import DescriptorSource
from remus_agent.adapters.transport import tls
from remus_agent.adapters.transport.tcp import TcpConnector
from remus_agent.addresses import parse_address
from remus_agent.cli.client import AgentUnavailable, Client
from remus_agent.cli.send import Outcome, Request, Show
from remus_agent.config import Config
from remus_agent.errors import ConfigError, ProtocolError, RemusError
from remus_agent.protocol.stream_tools.walk import CutBetweenEpochs
from remus_agent.relay_ports import Reserved
from remus_agent.services.relay import End, Relay, RelayPorts
from remus_agent.services.settings import Settings

_ANSWER: Final = 10.0
"""Seconds for this host's agent to answer."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def send(request: Request, show: Show) -> Outcome:
    """Relay one stream. Raises ConfigError; what ends a relay that has begun is in the outcome."""
    settings = config.load(request.config)
    address = _address(settings, request)
    return asyncio.run(_send(request, settings, address, show))


async def _send(request: Request, settings: Config, address: str, show: Show) -> Outcome:
    relay = Relay(
        RelayPorts(
            DescriptorSource(request.fd, request.name),
            TcpConnector(
                silence=settings.timeouts.silence, source=settings.replication.listen.ip, tls=tls.of_config(settings)
            ),
            AgentReservations(request.socket),
            SystemClock(),
        ),
        Settings(host=settings.host.name, **asdict(settings.timeouts)),
        address,
        domain=request.domain,
        ready=request.ready,
        on_progress=lambda report: show(report.as_dict()),
    )
    running = asyncio.create_task(relay.run(), name="relay")
    told = _cancelled_by_signals(running)
    await asyncio.wait({running})
    code, error = 0, None
    if running.cancelled():
        code = 128 + told[0]
    elif isinstance(found := running.exception(), RemusError):
        error = found
    elif found is not None:
        raise found
    elif relay.report.ended is End.BETWEEN_EPOCHS:
        code = CutBetweenEpochs.exit_code
    return Outcome(relay.report.as_dict(), code, error)


def _cancelled_by_signals(task: asyncio.Task[None]) -> list[int]:
    """The signals that have come, in order. One that is ignored stays so (a shell's `&` does that to SIGINT)."""
    told: list[int] = []

    def stop(number: int) -> None:
        told.append(number)
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stop, int(number))
    return told


def _address(settings: Config, request: Request) -> str:
    known = settings.replication.peers.get(request.to)
    if known is not None:
        return str(known)
    try:
        return str(parse_address(request.to))
    except ConfigError:
        names = ", ".join(sorted(settings.replication.peers)) or "none"
        raise ConfigError(
            f"{request.to!r} is neither a peer in {request.config} nor ADDRESS:PORT", hint=f"peers there: {names}"
        ) from None


class AgentReservations:
    """`relay_ports.Reservations` of the agent behind a control socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def reserve(self, domain: str, seconds: float) -> Reserved:
        """As the port says."""
        answer = await asyncio.to_thread(self._ask, domain, seconds)
        try:
            return msgspec.convert(answer, Reserved)
        except msgspec.ValidationError as error:
            raise ProtocolError(f"the agent's answer lacks something: {error}", operation="relay") from error

    async def renew(self, domain: str, seconds: float) -> None:
        """As the port says."""
        try:
            await asyncio.to_thread(self._ask, domain, seconds)
        except AgentUnavailable:
            return  # it is being restarted, and learns of us again

    def _ask(self, domain: str, seconds: float) -> dict[str, Any]:
        with Client(self._path) as client:
            return client.call("relay", {"domain": domain, "seconds": seconds}, timeout=_ANSWER)
