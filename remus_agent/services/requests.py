"""The verbs of the control socket: what each takes, checked strictly, and which service method answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from remus_agent.errors import ConfigError, RefusedError
from remus_agent.observe.event_kinds import explained
from remus_agent.observe.status import Status
from remus_agent.protocol.replication.messages import IntervalMs, OutputLimit, Uuid
from remus_agent.services.agent import AgentService
from remus_agent.services.selftest import SelfTest
from remus_agent.services.watch import Progress

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=127)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86400)]
MOST_AT_ONCE: Final = 10_000
Limit = Annotated[int, msgspec.Meta(ge=1, le=MOST_AT_ONCE)]


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """No parameters."""


class OfDomain(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One domain."""

    domain: Name


class Confirmed(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What somebody has seen of a domain and agreed to: its role on this host, and its generation."""

    role: Literal["primary", "backup", "none"]
    generation: int

    def require(self, status: Status, operation: str) -> None:
        """Raises RefusedError where it is something else by now."""
        if (status.role, status.generation) != (self.role, self.generation):
            raise RefusedError(
                f"it is {status.role} of generation {status.generation} here by now ({status.state}), and what was confirmed was"
                f" {self.role} of generation {self.generation}",
                operation=operation,
                domain=status.domain,
                left="nothing was changed",
                hint=f"look at `remusctl status {status.domain}`, and ask again",
            )


class Protect(OfDomain, kw_only=True):
    """Parameters of `protect`. interval_ms: how long the guest runs between checkpoints at least."""

    peer: Name
    interval_ms: IntervalMs | None = None
    output_limit_bytes: OutputLimit | None = None
    wait: bool = True
    timeout: Seconds = 900.0


class Probe(OfDomain, kw_only=True):
    """Parameters of `probe`."""

    peer: Name


class Unprotect(OfDomain, kw_only=True):
    """Parameters of `unprotect`. dry_run: only say whether it could be done. expected: what was confirmed."""

    force: bool = False
    timeout: Seconds = 120.0
    dry_run: bool = False
    expected: Confirmed | None = None


class Fenced(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The proof that a host is dead: which, how it was fenced, what confirmed it."""

    host: Name
    method: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    evidence: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]


class Failover(OfDomain, kw_only=True):
    """Parameters of `failover`. accept_loss: where the witness gives no word, activate a copy that clients may have been told
    more than it knows; recorded as a possible loss. dry_run: only say whether it could be done."""

    fenced: Fenced | None = None
    accept_loss: bool = False
    dry_run: bool = False
    expected_session: str | None = None
    expected_generation: int | None = None


class Switchover(OfDomain, kw_only=True):
    """Parameters of `switchover`. timeout: seconds that the last epoch may take. dry_run: only say whether it could be done."""

    timeout: Seconds = 60.0
    dry_run: bool = False
    expected_generation: int | None = None


class Pause(OfDomain, kw_only=True):
    """Parameters of `pause`. seconds: until it is protected again by itself. timeout: for the end of the protection. dry_run,
    expected: as with `unprotect`."""

    seconds: Annotated[float, msgspec.Meta(ge=1, le=7 * 86400)]
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""
    timeout: Seconds = 120.0
    dry_run: bool = False
    expected: Confirmed | None = None


class Resume(OfDomain, kw_only=True):
    """Parameters of `resume`."""

    wait: bool = True
    timeout: Seconds = 900.0


class FenceCheck(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Parameters of `fence-check`. host: a peer."""

    host: Name


class Forget(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Parameters of `forget`. uuid: of the guest. force: also where another host is its owner. dry_run: only say what would be
    removed."""

    uuid: Uuid
    force: bool = False
    dry_run: bool = False
    expected_generation: int | None = None


class Events(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Parameters of `events`. problems: only those that somebody has to do something about."""

    domain: Name | None = None
    since: Annotated[int, msgspec.Meta(ge=0)] = 0
    limit: Limit = 200
    problems: bool = False


class Records(OfDomain, kw_only=True):
    """Parameters of `records`."""

    limit: Limit = 4096


class Relay(OfDomain, kw_only=True):
    """Parameters of `relay`. seconds: how long the agent shall leave the domain alone, from now on; 0: it is over."""

    seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)]


P = TypeVar("P")
Handler = Callable[[dict[str, Any], Progress], Awaitable[Mapping[str, Any]]]
ReadEvents = Callable[[int, str | None, int], list[dict[str, Any]]]
DescribeTls = Callable[[], Awaitable[Mapping[str, Any]]]
Verb = Literal[
    "agent",
    "selftest",
    "list",
    "status",
    "topology",
    "protect",
    "probe",
    "unprotect",
    "switchover",
    "failover",
    "pause",
    "resume",
    "fence-check",
    "forget",
    "relay",
    "events",
    "records",
]


async def _tried(params: Unprotect | Pause, operation: str, require: Callable[[], Awaitable[Status]]) -> Status | None:
    """What it would be about, where only that is asked; None: carry it out. require: raises RemusError where it would be refused.
    Raises RefusedError where something else was confirmed."""
    if not params.dry_run and params.expected is None:
        return None
    now = await require()
    if params.expected is not None:
        params.expected.require(now, operation)
    return now if params.dry_run else None


def handlers(
    service: AgentService,
    read_events: ReadEvents,
    *,
    describe_tls: DescribeTls | None = None,
    configuration: Mapping[str, str | None] | None = None,
    selftest: SelfTest | None = None,
) -> dict[str, Handler]:
    """One handler a verb. describe_tls: what is to be said of this host's certificate; None where connections are not
    encrypted. configuration: digests of the files that the agent has read."""
    usual = service.settings

    async def agent(_: Nothing, __: Progress) -> Mapping[str, Any]:
        tls = None if describe_tls is None else await describe_tls()
        return {**await service.agent(), "tls": tls, "configuration": dict(configuration or {})}

    async def self_test(_: Nothing, __: Progress) -> Mapping[str, Any]:
        if selftest is None:
            raise ConfigError("this agent cannot test itself", operation="selftest")
        return await selftest.run()

    async def list_(_: Nothing, __: Progress) -> Mapping[str, Any]:
        return {"domains": [status.as_dict() for status in await service.overview()]}

    async def status(params: OfDomain, _: Progress) -> Mapping[str, Any]:
        return (await service.status(params.domain)).as_dict()

    async def topology(_: Nothing, __: Progress) -> Mapping[str, Any]:
        return await service.topology()

    async def probe(params: Probe, _: Progress) -> Mapping[str, Any]:
        return await service.probe(params.domain, params.peer)

    async def protect(params: Protect, progress: Progress) -> Mapping[str, Any]:
        status = await service.protect(
            params.domain,
            params.peer,
            interval_ms=usual.interval_ms if params.interval_ms is None else params.interval_ms,
            output_limit_bytes=usual.output_limit_bytes
            if params.output_limit_bytes is None
            else params.output_limit_bytes,
            wait=params.wait,
            timeout=params.timeout,
            progress=progress,
        )
        return status.as_dict()

    async def unprotect(params: Unprotect, progress: Progress) -> Mapping[str, Any]:
        now = await _tried(params, "unprotect", lambda: service.require_unprotect(params.domain, force=params.force))
        if now is not None:
            return now.as_dict()
        status = await service.unprotect(params.domain, force=params.force, timeout=params.timeout, progress=progress)
        return status.as_dict()

    async def failover(params: Failover, progress: Progress) -> Mapping[str, Any]:
        fenced = {} if params.fenced is None else msgspec.structs.asdict(params.fenced)
        if params.dry_run:
            return await service.failover_trial(
                params.domain,
                generation=params.expected_generation,
                session=params.expected_session,
                fenced=fenced,
                accept_loss=params.accept_loss,
            )
        progress("activating", message=f"failover {params.domain}")
        status = await service.failover(
            params.domain,
            generation=params.expected_generation,
            session=params.expected_session,
            fenced=fenced,
            accept_loss=params.accept_loss,
        )
        return status.as_dict()

    async def switchover(params: Switchover, progress: Progress) -> Mapping[str, Any]:
        return await service.switchover(
            params.domain,
            timeout=params.timeout,
            dry_run=params.dry_run,
            generation=params.expected_generation,
            progress=progress,
        )

    async def pause(params: Pause, progress: Progress) -> Mapping[str, Any]:
        now = await _tried(params, "pause", lambda: service.require_pause(params.domain))
        if now is not None:
            return now.as_dict()
        status = await service.pause(
            params.domain, seconds=params.seconds, reason=params.reason, timeout=params.timeout, progress=progress
        )
        return status.as_dict()

    async def resume(params: Resume, progress: Progress) -> Mapping[str, Any]:
        status = await service.resume_protection(
            params.domain, wait=params.wait, timeout=params.timeout, progress=progress
        )
        return status.as_dict()

    async def fence_check(params: FenceCheck, _: Progress) -> Mapping[str, Any]:
        return await service.fence_check(params.host)

    async def forget(params: Forget, _: Progress) -> Mapping[str, Any]:
        return await service.forget(
            params.uuid, force=params.force, generation=params.expected_generation, dry_run=params.dry_run
        )

    async def relay(params: Relay, _: Progress) -> Mapping[str, Any]:
        return asdict(await service.reserve(params.domain, params.seconds))

    async def events(params: Events, _: Progress) -> Mapping[str, Any]:
        most = MOST_AT_ONCE if params.problems else params.limit
        found = [explained(one) for one in read_events(params.since, params.domain, most)]
        if params.problems:
            found = [one for one in found if "runbook" in one]
            found = found[: params.limit] if params.since else found[-params.limit :]
        return {"events": found}

    async def records(params: Records, _: Progress) -> Mapping[str, Any]:
        return {"epochs": service.records(params.domain, params.limit)}

    return {
        "agent": _checked(Nothing, agent),
        "selftest": _checked(Nothing, self_test),
        "list": _checked(Nothing, list_),
        "status": _checked(OfDomain, status),
        "topology": _checked(Nothing, topology),
        "probe": _checked(Probe, probe),
        "protect": _checked(Protect, protect),
        "unprotect": _checked(Unprotect, unprotect),
        "switchover": _checked(Switchover, switchover),
        "failover": _checked(Failover, failover),
        "pause": _checked(Pause, pause),
        "resume": _checked(Resume, resume),
        "fence-check": _checked(FenceCheck, fence_check),
        "forget": _checked(Forget, forget),
        "relay": _checked(Relay, relay),
        "events": _checked(Events, events),
        "records": _checked(Records, records),
    }


def _checked(kind: type[P], handler: Callable[[P, Progress], Awaitable[Mapping[str, Any]]]) -> Handler:
    async def checked(params: dict[str, Any], progress: Progress) -> Mapping[str, Any]:
        try:
            request = msgspec.convert(params, kind)
        except msgspec.ValidationError as error:
            raise ConfigError(f"wrong parameters: {error}", operation="control request") from None
        return await handler(request, progress)

    return checked
