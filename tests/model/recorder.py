"""Turns a run of the simulated world into a trace of the formal model: what was seen, in the order in which it took effect.

Everything is observed where it takes effect: at the plugs, the journals, the witness and the hypervisor, and at what goes over
the wire when a session is opened. Of a service only the name of the session is taken in which it ends an epoch.
"""

from __future__ import annotations

from remus_agent.machines.authority import Ownership
from remus_agent.protocol.replication.messages import Hello, Message, Welcome
from remus_agent.store_ports import CommitRecord
from tests.formal.trace import Action, Event


class Recorder:
    """Of one run, from the first record in the witness on: before it there is no protocol."""

    def __init__(self) -> None:
        self._seen: list[Event | str] = []
        """Events; and the names of sessions, where their backups agreed to them."""
        self._hellos: dict[str, Hello] = {}
        self._begun: set[str] = set()
        """Sessions in which an epoch was ended: what was agreed to and never heard of is no session."""
        self._epoch: dict[str, tuple[str, int]] = {}
        """Of each host the session and the number of the last epoch that it ended."""
        self._record: Ownership | None = None
        self._owned_by: dict[str, Ownership] = {}
        """Of each host the last record by which it owned the guest."""
        self._open: set[str] = set()
        """Hosts whose output is open, as the model sees it: a plug that is closed without a barrier holds no epoch."""
        self._stopped = False
        self._forgotten = False

    @property
    def events(self) -> list[Event]:
        """The trace so far. Raises ValueError when somebody removed the record: the model does not know of that."""
        if self._forgotten:
            raise ValueError("a run in which the record was forgotten is no trace of the model")
        found = []
        for each in self._seen:
            if isinstance(each, Event):
                found.append(each)
            elif each in self._begun:
                hello = self._hellos[each]
                found.append(Event(hello.host, Action.SESSION, hello.generation))
        return found

    def stop(self) -> None:
        """The run is over; what its tasks do while they unwind is no part of it."""
        self._stopped = True

    def said(self, message: Message) -> None:
        """A message that opens a session has been sent."""
        if self._stopped:
            return
        if isinstance(message, Hello):
            self._hellos[message.session] = message
        elif isinstance(message, Welcome):
            self._seen.append(message.session)

    def barrier(self, host: str, session: str | None) -> None:
        """A host ends an epoch, in this session."""
        if self._stopped:
            return
        if session is None:
            raise AssertionError("a barrier outside of a session")
        before, epoch = self._epoch.get(host, (session, 0))
        self._epoch[host] = (session, epoch + 1 if before == session else 1)
        self._begun.add(session)
        self._open.discard(host)
        self._add(host, Action.BARRIER, self._hellos[session].generation, self._epoch[host][1])

    def committed(self, host: str, record: CommitRecord) -> None:
        """A host has written an epoch to its journal."""
        self._add(host, Action.COMMIT, record.generation, record.epoch)

    def changed(self, now: Ownership | None) -> None:
        """The witness has a new record."""
        if self._stopped:
            return
        before, self._record = self._record, now
        if now is None:
            self._forgotten = True
            return
        self._owned_by[now.owner] = now
        if before is None:
            self._open = {now.owner}
            return
        if now.owner != now.changed_by:
            action = Action.GIVE
        elif now.state == "protected":
            action = Action.PROTECT
        else:
            action = Action.SOLO if before.owner == now.owner else Action.TAKE
        self._add(now.changed_by, action, now.generation)

    def saw(self, host: str, action: Action) -> None:
        """One of the other actions."""
        if self._stopped or self._record is None:
            return
        generation, epoch = 0, 0
        match action:
            case Action.RELEASE:
                session, epoch = self._epoch.get(host, ("", 0))
                generation = self._hellos[session].generation if epoch else 0
            case Action.OPEN:
                if host in self._open:
                    return
                generation = self._record.generation
                self._open.add(host)
            case Action.ACTIVATE | Action.RESUME:
                generation = self._record.generation
            case Action.STAND_DOWN:
                # It may have been given back since this host has read that another one owns it.
                others = (each.generation for owner, each in self._owned_by.items() if owner != host)
                generation = max(others, default=0)
                self._open.discard(host)
            case Action.AGENT_CRASH | Action.ALONE:
                pass
            case Action.HOST_CRASH:
                self._open.discard(host)
            case _:
                raise ValueError(f"{action} has a method of its own")
        self._add(host, action, generation, epoch)

    def _add(self, host: str, action: Action, generation: int, epoch: int = 0) -> None:
        if not self._stopped and self._record is not None:
            self._seen.append(Event(host, action, generation, epoch))
