"""One moment of a host, as monitoring sees it. `health` judges it, `metrics` counts it."""

from __future__ import annotations

from dataclasses import dataclass

from remus_agent.observe.figures import EpochFigures
from remus_agent.observe.status import Status


@dataclass(frozen=True, slots=True)
class GuestView:
    """One domain. memory_bytes: what it has. figures: of one that is protected here."""

    status: Status
    uuid: str
    memory_bytes: int
    figures: EpochFigures | None = None


@dataclass(frozen=True, slots=True)
class CertificateView:
    """This host's certificate. expires: seconds since 1970; None where the files cannot be read. usable: peers accept it now."""

    expires: float | None
    usable: bool


@dataclass(frozen=True, slots=True)
class WitnessView:
    """What a request told that was made for no other purpose. reachable: a majority answers; None: nobody has asked yet.
    answered: when it last did, in seconds since 1970."""

    reachable: bool | None = None
    answered: float | None = None


@dataclass(frozen=True, slots=True)
class WatchdogView:
    """armed: Xen resets this host when its agent does not come back. problem: it cannot be armed, petted or disarmed."""

    armed: bool
    problem: bool


@dataclass(frozen=True, slots=True)
class HostView:
    """What is None is not configured, or not known at this moment (xen_version, free_memory_bytes, shared_...). shared_...: what
    the agent uses for all guests together, or for none."""

    host: str
    version: str
    guests: tuple[GuestView, ...]
    supervisor: bool
    xen_version: str | None = None
    free_memory_bytes: int | None = None
    shared_cpu_seconds: float | None = None
    shared_memory_bytes: int | None = None
    certificate: CertificateView | None = None
    witness: WitnessView | None = None
    watchdog: WatchdogView | None = None
