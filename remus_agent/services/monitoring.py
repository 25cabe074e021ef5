"""What the HTTP endpoint says: one moment of the agent, as metrics or as the answer to a question about health.

Reading costs a request to the plugs of each guest and one to Xen, so one moment serves everybody who asks within a second, and
however many ask, it is read by one at a time. Loaded only where the endpoint is configured.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from remus_agent import __version__
from remus_agent.errors import RemusError
from remus_agent.observe import health, metrics
from remus_agent.observe.status import Status
from remus_agent.observe.view import CertificateView, GuestView, HostView, WatchdogView
from remus_agent.ports import Clock, HostFacts, Hypervisor
from remus_agent.protocol.http import Refused, Request, Response
from remus_agent.services.agent import AgentService
from remus_agent.services.primary import is_over
from remus_agent.services.witness_probe import WitnessProbe

log = logging.getLogger(__name__)

MOMENT: Final = 1.0
"""Seconds for which a moment serves who asks next."""
FACTS_SECONDS: Final = 30.0
"""How old what is known of the host may be: reading it keeps Xen's thread from the guests for some milliseconds."""
MAX_DOMAIN: Final = 127
_JSON: Final = "application/json"
Judge = Callable[[HostView, str | None], health.Health]
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Probes:
    """What the agent itself does not know. supervisor: whether it is there; returns at once. certificate: of this host; None
    where connections are not encrypted. witness: None where there is none."""

    supervisor: Callable[[], bool]
    certificate: Callable[[], Awaitable[CertificateView]] | None = None
    witness: WitnessProbe | None = None


class Monitoring:
    """Of one agent."""

    def __init__(self, service: AgentService, hypervisor: Hypervisor, clock: Clock, probes: Probes) -> None:
        self._service = service
        self._hypervisor = hypervisor
        self._clock = clock
        self._probes = probes
        self._turn = asyncio.Lock()
        self._last: HostView | None = None
        self._read_at = -math.inf
        self._facts: HostFacts | None = None
        self._facts_at = -math.inf

    def handlers(self) -> Mapping[str, Handler]:
        """One a path."""
        return {
            "/metrics": self._metrics,
            "/primary": self._answer(health.primary),
            "/protected": self._answer(health.protected),
            "/readiness": self._answer(health.ready),
            "/liveness": self._alive,
        }

    async def view(self) -> HostView:
        """This moment, or one that is at most a second old. Raises Refused where it cannot be read."""
        async with self._turn:
            if self._last is None or self._clock.now() - self._read_at >= MOMENT:
                try:
                    self._last = await self._read()
                except RemusError as error:
                    log.warning("monitoring: %s", error)
                    raise Refused(503, "the agent cannot be read now; its log says why") from error
                self._read_at = self._clock.now()
            return self._last

    async def _read(self) -> HostView:
        probes = self._probes
        facts = await self._facts_now()
        moment = await self._service.moment()
        guests = [await self._guest(status) for status in moment.domains]
        watchdog, shared = self._service.watchdog(), moment.shared
        return HostView(
            host=self._service.settings.host,
            version=__version__,
            guests=tuple(guest for guest in guests if guest is not None),
            supervisor=probes.supervisor(),
            xen_version=None if facts is None else facts.xen_version,
            free_memory_bytes=None if facts is None else facts.free_memory_kib * 1024,
            shared_cpu_seconds=None if shared is None else shared.cpu_seconds,
            shared_memory_bytes=None if shared is None else shared.memory_bytes,
            certificate=None if probes.certificate is None else await probes.certificate(),
            witness=None if probes.witness is None else probes.witness.view,
            watchdog=None if watchdog is None else WatchdogView(watchdog["armed"], watchdog["problem"] is not None),
        )

    async def _facts_now(self) -> HostFacts | None:
        if self._clock.now() - self._facts_at >= FACTS_SECONDS:
            try:
                self._facts = await self._hypervisor.facts()
            except RemusError as error:
                log.warning("monitoring: %s", error)
                self._facts = None
            self._facts_at = self._clock.now()
        return self._facts

    async def _guest(self, status: Status) -> GuestView | None:
        """None for one that this agent only remembers the name of; not so for one that is paused."""
        primary = self._service.last_protector(status.domain)
        if primary is not None and not is_over(primary):
            return GuestView(status, primary.domain.uuid, primary.domain.memory_kib * 1024, primary.figures.copy())
        copy = self._service.backup.copy_of(status.domain)
        if copy is not None:
            return GuestView(status, copy.hello.uuid, copy.hello.memory_kib * 1024)
        if primary is not None:
            return GuestView(status, primary.domain.uuid, primary.domain.memory_kib * 1024)
        if status.state == "paused":
            try:
                domain = await self._hypervisor.domain(status.domain)
            except RemusError as error:
                log.warning("monitoring: %s", error)
                return None
            return GuestView(status, domain.uuid, domain.memory_kib * 1024)
        return None

    async def _metrics(self, request: Request) -> Response:
        if request.query:
            raise Refused(400, "/metrics takes no parameter")
        view = await self.view()
        content_type, body = await asyncio.to_thread(metrics.page, view, request.accept)
        return Response(200, body, content_type)

    async def _alive(self, request: Request) -> Response:
        if request.query:
            raise Refused(400, "/liveness takes no parameter: it is about the agent")
        return _json(200, {"host": self._service.settings.host, "ok": True, "version": __version__})

    def _answer(self, judge: Judge) -> Handler:
        async def answer(request: Request) -> Response:
            found = judge(await self.view(), _domain(request))
            body = {"host": self._service.settings.host, "ok": found.ok, **msgspec.to_builtins(found)}
            return _json(200 if found.ok else 503, body)

        return answer


def _domain(request: Request) -> str | None:
    unknown = sorted(set(request.query) - {"domain"})
    if unknown:
        raise Refused(400, f"{request.path} takes domain=NAME and nothing else")
    domain = request.query.get("domain")
    if domain is not None and not 1 <= len(domain) <= MAX_DOMAIN:
        raise Refused(400, f"domain is the name of a guest, of 1 to {MAX_DOMAIN} characters")
    return domain


def _json(status: int, body: Mapping[str, object]) -> Response:
    return Response(status, msgspec.json.encode(body) + b"\n", _JSON)
