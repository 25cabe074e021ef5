"""Getting a guest down (SHUTDOWN_suspend) and knowing at once that it is.

The request goes through xenstore (`control/shutdown`); mainline Linux knows no other way. Completion comes
over a suspend event channel that we allocate ourselves and tell Xen about: Xen then notifies that port
*instead of* raising VIRQ_DOM_EXC, so xenstored does not scan all domains and xl's monitor sleeps on while
the guest is down (xen/common/domain.c: __domain_finalise_shutdown). The port is not published in xenstore.
Where it cannot be had, the domain is polled."""

from __future__ import annotations

import logging
import select
import threading
import time
from typing import Final

from remus_agent.adapters.xen.control import DomainControl
from remus_agent.adapters.xen.libs import Libraries, failed
from remus_agent.adapters.xen.structs import DomainInfo, Shutdown
from remus_agent.adapters.xen.xenstore import XenStore
from remus_agent.errors import GuestEnded, HypervisorError

log = logging.getLogger(__name__)

_LOOK: Final = 0.05
"""Seconds between looks at the domain while the event channel is silent: it dies without a sound, and the
guest may end in another way than asked."""
_POLL: Final = 0.001
"""Seconds between looks where there is no event channel."""
_LATE: Final = 3.0
"""Seconds that `settle` waits for a guest that has accepted a request and was not down in time."""


class Suspender:
    """Suspends one domain again and again. Use it from one thread; `abandon` is for others."""

    def __init__(self, libs: Libraries, domain: DomainControl, store: XenStore) -> None:
        self._libs, self._domain, self._store = libs, domain, store
        self._request = f"/local/domain/{domain.domid}/control/shutdown"
        self._kept_port = f"/libxl/{domain.domid}/remus-suspend-port"
        self._events: int | None = None
        self._port = -1
        self._poll = select.poll()
        self._accepted = False
        self._abandoned = threading.Event()

    @property
    def has_channel(self) -> bool:
        """True while completion comes as an event; False: it is polled for."""
        return self._port >= 0

    def open(self) -> None:
        """Get the event channel; without one, say so in the log and go on."""
        try:
            self._open_channel()
        except HypervisorError as error:
            self._close_channel()
            log.warning("%s: no suspend event channel (%s); polling for it", self._domain.name, error)

    def suspend(self, timeout: float) -> DomainInfo:
        """Ask the guest to suspend and wait until it is down. timeout: seconds.

        Raises HypervisorError when it is not down in time (the request is withdrawn), GuestEnded when it
        shut down otherwise."""
        info = self._domain.info()
        if not info.suspended:
            self._refuse_ended(info)
            self._store.write(self._request, "suspend")
            info = self._wait(time.monotonic() + timeout, timeout)
        self._accepted = False
        return info

    def resumed(self) -> None:
        """To be called after each resume: without the event channel xenstored saw the shutdown and must
        forget it."""
        if not self.has_channel:
            self._store.resume_domain(self._domain.domid)

    def abandon(self) -> None:
        """Make a waiting `suspend` give up soon. From any thread."""
        self._abandoned.set()

    @property
    def may_go_down(self) -> bool:
        """Whether the guest accepted a request and has not been seen down since: nothing tells when it gives up freezing."""
        return self._accepted

    def is_down(self) -> bool:
        """Whether the guest is down for suspension, asked for or late."""
        down = self._domain.info().suspended
        if down:
            self._accepted = False
        return down

    def settle(self) -> bool:
        """Wait for a guest that accepted a request but was not down in time. True: it is down now, and must
        be resumed."""
        deadline = time.monotonic() + _LATE
        while self._accepted and time.monotonic() < deadline:
            if self.is_down():
                break
            time.sleep(_LOOK)
        return self.is_down()

    def close(self) -> None:
        """Give the event channel back; Xen reports shutdowns the ordinary way again. Safe to call twice."""
        self._close_channel()

    def _wait(self, deadline: float, timeout: float) -> DomainInfo:
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or self._abandoned.is_set():
                self._withdraw(timeout)
            self._pause(left)
            info = self._domain.info()
            if info.suspended:
                return info
            self._refuse_ended(info)

    def _pause(self, left: float) -> None:
        if not self.has_channel:
            time.sleep(min(_POLL, left))
        elif self._poll.poll(min(_LOOK, left) * 1000):
            port = self._libs.xenevtchn_pending(self._events)
            if port < 0 or self._libs.xenevtchn_unmask(self._events, port):
                raise failed("xenevtchn_pending", self._domain.name)

    def _withdraw(self, timeout: float) -> None:
        unseen = self._store.swap(self._request, "suspend", "")
        self._accepted = not unseen
        raise HypervisorError(
            f"the guest did not react to the suspend request within {timeout:g} s"
            if unseen
            else f"the guest accepted the suspend request and was not down after {timeout:g} s",
            operation="suspend the guest",
            domain=self._domain.name,
            left="the guest runs; the request is withdrawn"
            if unseen
            else "the guest runs or is still freezing; it is resumed should it go down yet",
            hint="look at its console: a process or driver that cannot be frozen holds it up",
        )

    def _refuse_ended(self, info: DomainInfo) -> None:
        reason = info.shutdown
        if reason is None:
            return
        known = {int(item): item.name.lower().replace("_", " ") for item in Shutdown}
        raise GuestEnded(
            f"the guest shut down by itself ({known.get(reason, f'reason {reason}')})",
            domain=self._domain.name,
            left="the toolstack deals with the domain as its configuration says",
        )

    def _open_channel(self) -> None:
        control, domid = self._domain.control, self._domain.domid
        self._events = self._libs.xenevtchn_open(None, 0)
        if not self._events:
            raise failed("xenevtchn_open", self._domain.name)
        # A port cannot be taken back from a running guest, so an earlier one is used again.
        kept = self._store.read(self._kept_port) or ""
        if kept.isdigit():
            self._port = self._libs.xenevtchn_bind_interdomain(self._events, domid, int(kept))
        if self._port < 0:
            port = self._libs.xc_evtchn_alloc_unbound(control.handle, domid, 0)
            if port < 0:
                raise failed("xc_evtchn_alloc_unbound", self._domain.name)
            kept = str(port)
            self._store.write(self._kept_port, kept)
            self._port = self._libs.xenevtchn_bind_interdomain(self._events, domid, port)
            if self._port < 0:
                raise failed("xenevtchn_bind_interdomain", self._domain.name)
        if self._libs.xc_domain_subscribe_for_suspend(control.handle, domid, int(kept)):
            raise failed("xc_domain_subscribe_for_suspend", self._domain.name)
        self._poll.register(self._libs.xenevtchn_fd(self._events), select.POLLIN)

    def _close_channel(self) -> None:
        events, self._events = self._events, None
        subscribed, self._port = self._port >= 0, -1
        if subscribed:
            # Fails only when the domain is gone, and then nothing is left to undo.
            self._libs.xc_domain_subscribe_for_suspend(self._domain.control.handle, self._domain.domid, 0)
        if events:
            self._libs.xenevtchn_close(events)
