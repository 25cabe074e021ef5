"""What is asked of xenstored by somebody who must not wait for it: in a thread of its own, one errand after the other.

libxenstore has no limit for an answer of xenstored, and no call of it can be ended. So who asks goes on, and the thread stays
where it is until xenstored answers again. No asyncio here: the supervisor uses this."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from remus_agent.adapters.xen.xenstore import XenStore
from remus_agent.errors import RemusError

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Errand:
    """One. domid: whom it is about; 0: nobody. error: why it failed, once it has."""

    domid: int
    work: Callable[[XenStore], None]
    error: RemusError | None = None


class Errands:
    """connect: makes the connection that all of them share; it is called in the thread, and again after an errand has failed."""

    def __init__(self, connect: Callable[[], XenStore]) -> None:
        self._connect = connect
        self._changed = threading.Condition()
        self._waiting: deque[Errand] = deque()
        self._now: Errand | None = None
        self._late = False
        # A daemon: a process that is told to end must not wait for xenstored either.
        threading.Thread(target=self._run, name="xenstored", daemon=True).start()

    def ask(self, domid: int, work: Callable[[XenStore], None]) -> Errand:
        """Have it done when all before it are. What it raises as RemusError is logged, and kept in the errand."""
        errand = Errand(domid, work)
        with self._changed:
            self._waiting.append(errand)
            self._changed.notify_all()
        return errand

    def settle(self, seconds: float) -> bool:
        """Wait until all are done, at most so many seconds; not at all once that was in vain, until one is done again. Whether
        they are."""
        with self._changed:
            done = self._changed.wait_for(lambda: self._idle, 0.0 if self._late else seconds)
            if not done and not self._late:
                log.warning("xenstored has not answered for %g s; guests are looked after without it", seconds)
            self._late = not done
            return done

    def drop(self, domid: int) -> None:
        """What has not begun for a domain is never done."""
        with self._changed:
            self._waiting = deque(errand for errand in self._waiting if errand.domid != domid)

    def open(self, domid: int) -> bool:
        """Whether one for this domain waits, or is under way."""
        with self._changed:
            return any(errand.domid == domid for errand in (self._now, *self._waiting) if errand is not None)

    @property
    def _idle(self) -> bool:
        return self._now is None and not self._waiting

    def _run(self) -> None:
        store: XenStore | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                errand = self._now = self._waiting.popleft()
            try:
                store = store or self._connect()
                errand.work(store)
            except RemusError as error:
                errand.error = error
                log.warning("domain %d: %s", errand.domid, error)
                if store is not None:
                    store.close()
                    store = None
            except Exception:
                log.exception("domain %d: this should not happen; the next errand is done all the same", errand.domid)
            finally:
                with self._changed:
                    self._now, self._late = None, False
                    self._changed.notify_all()
