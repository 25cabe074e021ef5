"""Yes or no for load balancers and scripts, from one moment of a host. What each state of a guest means for the answer stands in
`OF_STATE` alone; docs/operations.md has it in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from remus_agent.observe.status import State, Status
from remus_agent.observe.view import GuestView, HostView


class Marks(NamedTuple):
    """What a state means. owned: by what this agent knows, the guest runs here and nowhere else, whether its output is held or
    not. protected: epochs are committed. ready: this host holds all that it takes to serve the guest."""

    owned: bool
    protected: bool
    ready: bool


OF_STATE: Final[Mapping[State, Marks]] = MappingProxyType(
    {
        "connecting": Marks(owned=True, protected=False, ready=False),
        "seeding": Marks(owned=True, protected=False, ready=False),
        "protected": Marks(owned=True, protected=True, ready=True),
        "silent": Marks(owned=True, protected=False, ready=False),
        "solo": Marks(owned=True, protected=False, ready=True),
        "stopping": Marks(owned=True, protected=False, ready=False),
        # Down for its last epoch, and still this host's: it can be called off.
        "switching": Marks(owned=True, protected=False, ready=False),
        "active": Marks(owned=True, protected=False, ready=True),
        # Down here; the other host runs it, or nobody has said so yet.
        "handed-over": Marks(owned=False, protected=False, ready=False),
        "in-doubt": Marks(owned=False, protected=False, ready=False),
        "standing-down": Marks(owned=False, protected=False, ready=False),
        "stood-down": Marks(owned=False, protected=False, ready=False),
        "starting": Marks(owned=False, protected=False, ready=False),
        # Copies.
        "receiving": Marks(owned=False, protected=False, ready=False),
        "ready": Marks(owned=False, protected=False, ready=True),
        "orphaned": Marks(owned=False, protected=False, ready=True),
        "activating": Marks(owned=False, protected=False, ready=False),
        "stale": Marks(owned=False, protected=False, ready=False),
        "discarded": Marks(owned=False, protected=False, ready=False),
        # Not looked after any more.
        "unprotected": Marks(owned=False, protected=False, ready=False),
        "paused": Marks(owned=False, protected=False, ready=False),
        "failed": Marks(owned=False, protected=False, ready=False),
    }
)

_NOTHING: Final = Marks(owned=False, protected=False, ready=False)


@dataclass(frozen=True, slots=True)
class GuestHealth:
    """One guest's part of an answer."""

    domain: str
    role: str
    state: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Health:
    """An answer. guests: those that it is about. problems: what else stands against yes."""

    guests: tuple[GuestHealth, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Yes."""
        return not self.problems and all(guest.ok for guest in self.guests)


def marks(status: Status) -> Marks:
    """What a guest's state means; nothing where it has no role here."""
    return OF_STATE[status.state] if status.role != "none" else _NOTHING


def of_host(view: HostView) -> tuple[str, ...]:
    """What keeps this host as such from protecting a guest, taking one in or taking one over."""
    found = []
    if not view.supervisor:
        found.append("the supervisor is not there")
    if view.certificate is not None and not view.certificate.usable:
        found.append("the certificate cannot be used")
    if view.witness is not None and view.witness.reachable is False:
        found.append("the witness cannot be reached")
    if view.watchdog is not None and view.watchdog.problem:
        found.append("the watchdog cannot be armed")
    return tuple(found)


def primary(view: HostView, domain: str | None) -> Health:
    """Whether the guest runs here; without a name, whether every guest does that this host has to do with, and there is one."""
    return _judge(view, domain, lambda guest: guest.status.role != "none", lambda found: found.owned)


def protected(view: HostView, domain: str | None) -> Health:
    """Whether the guest runs here and its epochs are committed; without a name, whether that is true of every guest that this
    host is the primary of, and there is one."""
    return _judge(view, domain, lambda guest: guest.status.role == "primary", lambda found: found.protected)


def ready(view: HostView, domain: str | None) -> Health:
    """Whether nothing stands against this host, and it would serve the guest were the other one lost now; without a name, whether
    that is true of every guest. A host without any can be ready."""
    counted = [guest for guest in view.guests if guest.status.role != "none"]
    if domain is None and not counted:
        return Health(problems=of_host(view))
    found = _judge(view, domain, lambda guest: guest.status.role != "none", lambda each: each.ready)
    return Health(found.guests, (*of_host(view), *found.problems))


def _judge(
    view: HostView, domain: str | None, counts: Callable[[GuestView], bool], holds: Callable[[Marks], bool]
) -> Health:
    if domain is not None:
        named = [guest for guest in view.guests if guest.status.domain == domain]
        missing = "this host has nothing to do with the guest"
    else:
        named = [guest for guest in view.guests if counts(guest)]
        missing = "there is no such guest on this host"
    if not named:
        return Health(problems=(missing,))
    return Health(
        tuple(
            GuestHealth(each.status.domain, each.status.role, each.status.state, holds(marks(each.status)))
            for each in named
        )
    )
