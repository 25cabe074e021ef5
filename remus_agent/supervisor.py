"""`remus-supervisor`: resumes a guest that a killed agent left suspended, or that goes down when its agent has
stopped waiting for it. Small, always running, never touches a plug.

An agent connects and says which domains it may suspend (`adapters.xen.guard` is the client). When its
connection ends, or when it was already gone while this process was restarted, each of its domains is looked
after for a while: a pending request to suspend is withdrawn, a guest that is down for suspension is
resumed, log-dirty and the suspend event channel are switched off. Output that an agent held stays held:
only an agent with authority may release it.

A guest that is down is resumed without xenstored, which may not answer: what is asked of that is done beside the loop
(`adapters.xen.errands`), and nobody waits for it longer than a moment.

One JSON object a line: `{"watch": domid, "uuid": uuid}`, `{"unwatch": domid}`, `{"alive": true}`; answers `{"ok": true}` or
`{"ok": false, "error": text}`. What is watched is also in a file, with the agent's process, for the next
supervisor."""

from __future__ import annotations

import argparse
import ctypes as ct
import json
import logging
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from remus_agent.adapters.xen import device_model
from remus_agent.adapters.xen import libs as xen
from remus_agent.adapters.xen.errands import Errands
from remus_agent.adapters.xen.structs import SHADOW_OP_OFF, DomainInfo
from remus_agent.adapters.xen.xenstore import XenStore
from remus_agent.errors import RemusError
from remus_agent.faults import FaultName, active, check

log = logging.getLogger("remus-supervisor")

RUN: Final = Path("/run/remus")
LOOK_AFTER: Final = 60.0
"""Seconds to look after a domain whose agent is gone: three times as long as Linux tries to freeze its
processes, after which it gives up on a request to suspend. A guest on a crowded host is slow in the rest."""
RECONNECT: Final = 3.0
"""Seconds that a restarted supervisor gives a living agent's dead process id to turn out to be a living
one."""
_TICK: Final = 0.1
_PATIENCE: Final = 1.0
"""Seconds that the loop waits for xenstored: it answers within a millisecond, and then everything is done in order."""
_LINE: Final = 4096
_CALLS: Final = frozenset(
    {
        "xc_interface_open", "xc_interface_close", "xc_domain_getinfolist", "xc_shadow_control", "xc_domain_resume",
        "xc_domain_subscribe_for_suspend", "xs_open", "xs_close", "xs_read", "xs_write", "xs_transaction_start",
        "xs_transaction_end", "xs_resume_domain",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Watched:
    """A domain and the agent process that may suspend it. started: of the process, in clock ticks since
    boot (process ids are used again)."""

    domid: int
    uuid: str
    pid: int
    started: int


@dataclass(slots=True)
class Orphan:
    """A domain whose agent is gone. since, until: monotonic seconds. told: what was logged last."""

    watched: Watched
    since: float
    until: float
    told: str = ""


@dataclass(slots=True, eq=False)
class Client:
    """One connection of an agent."""

    line: socket.socket
    pid: int
    started: int
    pending: bytes = b""
    watched: dict[int, Watched] = field(default_factory=dict)


class Xen:
    """The few calls that bring a guest back. device_models: folder of their sockets."""

    def __init__(self, device_models: Path = device_model.RUN) -> None:
        self._device_models = device_models
        self._libs = xen.load(only=_CALLS)
        self._handle = self._libs.xc_interface_open(None, None, 0)
        if not self._handle:
            raise xen.failed("xc_interface_open", hint="the supervisor needs root in dom0")
        self._info = DomainInfo()
        self._errands = Errands(lambda: XenStore(self._libs))
        connected = self._errands.ask(0, lambda _: None)
        self.settle()
        if connected.error is not None:
            raise connected.error

    def settle(self) -> None:
        """Wait a moment for what was asked of xenstored."""
        self._errands.settle(_PATIENCE)

    def asks(self, domid: int) -> bool:
        """Whether xenstored has yet to answer something about a domain."""
        return self._errands.open(domid)

    def leave(self, domid: int) -> None:
        """Ask xenstored nothing more about a domain."""
        self._errands.drop(domid)

    def withdraw(self, watched: Watched) -> None:
        """Take back what the agent set up: the request, as soon as xenstored answers, the event channel, log-dirty."""
        if self._look(watched) is None:
            return
        self._errands.ask(watched.domid, partial(_withdraw_request, watched.domid))
        self._libs.xc_domain_subscribe_for_suspend(self._handle, watched.domid, 0)
        if self._libs.xc_shadow_control(self._handle, watched.domid, SHADOW_OP_OFF, None, 0):
            log.info("domain %d: log-dirty was off", watched.domid)

    def _let_device_model_go_on(self, domid: int) -> None:
        """An HVM guest's QEMU, which the dead agent may have halted with the guest."""
        if not device_model.socket_of(domid, self._device_models).exists():
            return
        model = device_model.DeviceModel(domid, f"domain {domid}", self._device_models)
        try:
            with model.line():
                model.cont()
                model.dirty_log(on=False)
        except RemusError as error:
            log.warning("domain %d: %s", domid, error)
        finally:
            model.close()

    def revive(self, watched: Watched) -> bool | None:
        """Resume the domain if it is down for suspension, and have xenstored told. True: it was. None: there is no such domain
        any more."""
        info = self._look(watched)
        if info is None:
            return None
        if not info.suspended or active(FaultName.NOBODY_RESUMES):
            return False
        self._let_device_model_go_on(watched.domid)
        if self._libs.xc_domain_resume(self._handle, watched.domid, 1):
            raise xen.failed(f"xc_domain_resume {watched.domid}")
        self._errands.ask(watched.domid, lambda store: store.resume_domain(watched.domid))
        return True

    def _look(self, watched: Watched) -> DomainInfo | None:
        info = self._info
        found = self._libs.xc_domain_getinfolist(self._handle, watched.domid, 1, ct.byref(info))
        if found < 0:
            raise xen.failed("xc_domain_getinfolist")
        same = found == 1 and info.domain == watched.domid and info.uuid == watched.uuid
        return info if same and not info.dying else None


def _withdraw_request(domid: int, store: XenStore) -> None:
    if store.swap(f"/local/domain/{domid}/control/shutdown", "suspend", ""):
        log.warning("domain %d: withdrew a request to suspend that was left", domid)


class Supervisor:
    """The event loop. One thread: a domain is never watched anew while it is being revived."""

    def __init__(self, xen_calls: Xen, run: Path) -> None:
        self._xen = xen_calls
        self._state = run / "watched.json"
        self._selector = selectors.DefaultSelector()
        self._clients: set[Client] = set()
        self._orphans: dict[int, Orphan] = {}
        self._inherited: list[Orphan] = []
        self._path = run / "supervisor.sock"
        self._server = self._listen()

    def inherit(self) -> None:
        """Take over what an earlier supervisor watched. Its agent may live on and connect again."""
        try:
            entries = [Watched(**entry) for entry in json.loads(self._state.read_bytes())]
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s cannot be used: %s", self._state, error)
            return
        now = time.monotonic()
        self._inherited = [Orphan(entry, now, now + RECONNECT) for entry in entries]
        for entry in entries:
            log.info("domain %d was watched for process %d before", entry.domid, entry.pid)

    def step(self) -> None:
        """Wait for something and deal with it."""
        busy = self._orphans or self._inherited
        for key, _ in self._selector.select(_TICK if busy else None):
            if key.data is None:
                self._accept()
            elif key.data in self._clients:
                self._receive(key.data)
        self._adopt()
        self._look_after()

    def close(self) -> None:
        """Leave the file for the next supervisor."""
        for client in list(self._clients):
            client.line.close()
        self._selector.close()
        self._server.close()
        self._path.unlink(missing_ok=True)

    def _listen(self) -> socket.socket:
        self._path.parent.mkdir(mode=0o755, exist_ok=True)
        self._path.unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(str(self._path))
        self._path.chmod(0o600)
        server.listen(16)
        server.setblocking(False)
        self._selector.register(server, selectors.EVENT_READ, None)
        return server

    def _accept(self) -> None:
        line, _ = self._server.accept()
        line.setblocking(False)
        raw = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid = struct.unpack("3i", raw)[0]
        client = Client(line, pid, process_start(pid) or 0)
        self._clients.add(client)
        self._selector.register(line, selectors.EVENT_READ, client)

    def _receive(self, client: Client) -> None:
        try:
            data = client.line.recv(_LINE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.pending += data
        while b"\n" in client.pending:
            request, _, client.pending = client.pending.partition(b"\n")
            self._answer(client, request)
        if not data or len(client.pending) >= _LINE:
            self._gone(client)

    def _answer(self, client: Client, request: bytes) -> None:
        try:
            self._obey(client, json.loads(request))
            answer: dict[str, object] = {"ok": True}
        except (ValueError, TypeError, KeyError, OSError) as error:
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
            log.warning("refused %r: %s", request[:200], error)
        try:
            client.line.send(json.dumps(answer).encode() + b"\n")
        except OSError as error:
            log.warning("process %d does not take its answer: %s", client.pid, error)

    def _obey(self, client: Client, request: dict[str, object]) -> None:
        match request:
            case {"watch": int(domid), "uuid": str(uuid), **rest} if not rest and domid > 0:
                if self._xen.asks(domid):  # it could take back what the new agent is about to ask of the guest
                    raise ValueError(f"xenstored has not answered yet what it was asked about domain {domid}")
                client.watched[domid] = Watched(domid, uuid, client.pid, client.started)
                self._orphans.pop(domid, None)
                self._inherited = [orphan for orphan in self._inherited if orphan.watched.domid != domid]
                log.info("domain %d: watched for process %d", domid, client.pid)
            case {"unwatch": int(domid), **rest} if not rest:
                client.watched.pop(domid, None)
                log.info("domain %d: no longer watched", domid)
            case {"alive": True, **rest} if not rest:
                return
            case _:
                raise ValueError("expected watch and uuid, unwatch, or alive")
        self._save()

    def _gone(self, client: Client) -> None:
        self._selector.unregister(client.line)
        client.line.close()
        self._clients.discard(client)
        for watched in client.watched.values():
            log.warning("domain %d: its agent (process %d) has hung up", watched.domid, watched.pid)
        self._orphaned(client.watched.values())

    def _orphaned(self, orphans: Collection[Watched]) -> None:
        now = time.monotonic()
        self._orphans.update({watched.domid: Orphan(watched, now, now + LOOK_AFTER) for watched in orphans})
        self._look_after()  # first of all: a guest that is down waits for nothing else
        for watched in orphans:
            try:
                self._xen.withdraw(watched)
            except RemusError as error:
                log.warning("domain %d: %s", watched.domid, error)
        self._xen.settle()

    def _adopt(self) -> None:
        """Domains of an agent that died before or after this process started. A living agent connects
        before it suspends."""
        now = time.monotonic()
        for orphan in list(self._inherited):
            entry = orphan.watched
            if process_start(entry.pid) != entry.started and now >= orphan.until:
                self._inherited.remove(orphan)
                log.warning("domain %d: its agent (process %d) did not survive", entry.domid, entry.pid)
                self._orphaned([entry])

    def _look_after(self) -> None:
        told = False
        for domid, orphan in list(self._orphans.items()):
            try:
                revived = self._xen.revive(orphan.watched)
            except RemusError as error:
                # Not given up, however long it takes: it may be down, and nobody else would resume it.
                if orphan.told != str(error):
                    log.warning("domain %d: %s", domid, error)
                orphan.told = str(error)
                continue
            if revived:
                told = True
                log.warning("domain %d: resumed; it was left suspended", domid)
            elif self._xen.asks(domid):
                orphan.until = time.monotonic() + LOOK_AFTER  # it may yet obey a request that is not withdrawn
            if revived is None:
                self._xen.leave(domid)
            if revived is None or revived or time.monotonic() > orphan.until:
                del self._orphans[domid]
                log.info("domain %d: %s", domid, "gone" if revived is None else "left running")
                self._save()
        if told:
            self._xen.settle()

    def _save(self) -> None:
        watched = {entry.domid: entry for client in self._clients for entry in client.watched.values()}
        for orphan in [*self._inherited, *self._orphans.values()]:
            watched.setdefault(orphan.watched.domid, orphan.watched)
        new = self._state.with_suffix(".new")
        new.write_text(json.dumps([asdict(entry) for entry in watched.values()]))
        new.replace(self._state)


def process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] == b"Z" else int(fields[19])


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); nothing where systemd does not ask."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def main() -> int:
    """Entry point of `remus-supervisor`."""
    parser = argparse.ArgumentParser(prog="remus-supervisor", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--run", type=Path, default=RUN, help="folder of the socket and the state (default: %(default)s)"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        check()
        supervisor = Supervisor(Xen(), options.run)
    except (RemusError, OSError) as error:
        log.critical("%s", error)
        return 1
    try:
        supervisor.inherit()
        notify("READY=1")
        while True:
            supervisor.step()
    finally:
        supervisor.close()


if __name__ == "__main__":
    sys.exit(main())
