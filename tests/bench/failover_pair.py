"""One failover of each kind on the lab's pair, and what the new host, the wire and a client have seen of it.

Both begin with a fresh guest on the first host, under a client's load, and both times that host loses its power. Until the guest
answers on the other one nobody talks to that host: to open an ssh session there costs it a second of what is measured.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pair import agent, clock, stock_remus
from pair.beacon import Listener, listening
from pair.collect import collect
from pair.guest import TYPE, forget
from pair.hosts import ADDRESSES, GUEST, HOSTS, CommandFailed, on, power_loss, powered
from pair.load import Load, load, now
from pair.protection import SEED_TIMEOUT, wait_protected
from pair.wait import TooLate, until
from pair.witness import whole, witnessed
from proof.history import HistoryError, read

from bench.failover_figures import OURS, SETTLED
from remus_agent.config import parse

FIRST, SECOND = HOSTS
HERE = Path(__file__).parent
FOLDER = "/run/remus-bench-failover"
STOCK = "/run/remus-bench-stock"
PORT = 7790
TAKE = f"exec python3 {FOLDER}/stock_forward.py {ADDRESSES[SECOND]} {PORT}"
"""What `xl remus` runs, with the stream on its standard input."""
CHECKPOINTS = 20
"""Of stock before its primary dies."""
UNNOTICED = 5
"""Seconds for which stock's backup only waits, so that the session that has told it so is over when it begins to activate."""
REPLIES = 60
"""That the client must get before a host dies, and of a takeover of ours afterwards."""
ASKED_EVERY = 0.1
"""Seconds between two questions to the guest on the wire."""
AUTOMATIC = 180.0
"""Seconds for a host to notice a death, take over and answer."""
FRAMES = 300
"""So many are kept of those with which the new host begins."""
FAILURES = (CommandFailed, agent.AgentError, TooLate, HistoryError)
"""What ends one measurement, and not the benchmark."""


@dataclass(frozen=True)
class Scene:
    """A guest under load that is asked all the time. wire: behind the second host's cable to the guests' network."""

    client: Load
    wire: Listener

    def die(self) -> tuple[float, clock.Difference]:
        """Its host loses power. The moment, and how the other host's clock stood before."""
        self.client.wait_for(REPLIES, 300)
        before = clock.difference(SECOND)
        return power_loss(FIRST), before

    def answered(self, killed: float, before: clock.Difference) -> dict[str, Any]:
        """Wait until the guest answers from the second host; what is the same in the raw figures of both kinds."""
        until(
            f"the guest answers from {SECOND}",
            lambda: any(frame.sequence is not None for frame in self.wire.between(killed)),
            timeout=AUTOMATIC,
            every=0.2,
        )
        after = clock.difference(SECOND)
        frames = [[frame.mono, frame.kind, frame.sequence] for frame in self.wire.between(killed)[:FRAMES]]
        return {"killed": killed, "clock": [asdict(before), asdict(after)], "frames": frames}

    def reply(self, killed: float) -> dict[str, float | None]:
        """When the client heard of its guest on its one connection: last before its host died, and first afterwards."""
        with self.client.history.open(encoding="utf-8") as file:
            heard = [ack.mono for ack in read(file).acks]
        settled = killed + SETTLED
        return {
            "last": max((mono for mono in heard if mono <= settled), default=None),
            "first": min((mono for mono in heard if mono > settled), default=None),
        }


@contextlib.contextmanager
def asked(wire: Listener) -> Iterator[None]:
    """The guest is asked for a frame all the time, each time once. A client on a connection waits twice as long for each
    repetition, so what it sees says as much about its patience as about the guest."""
    over = threading.Event()

    def ask() -> None:
        sequence = 0
        while not over.wait(ASKED_EVERY):
            sequence += 1
            wire.ask(sequence)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


@contextlib.contextmanager
def scene(history: Path) -> Iterator[Scene]:
    """The guest as it runs now, under load."""
    with listening(SECOND) as wire, asked(wire), load(history) as client:
        yield Scene(client, wire)


@dataclass(frozen=True)
class Failovers:
    """Made by `prepared`. folder: for histories, and logs of what failed. log: told what is being done."""

    folder: Path
    log: Callable[[str], None]

    def measure(self, kind: str, number: int) -> dict[str, Any]:
        """Raw figures of one failover; with `failed` when it did not come."""
        self.log(f"round {number}: {kind}")
        self._home()
        name = f"{number:02}-{kind}"
        history = self.folder / f"history-{name}.jsonl"
        raw: dict[str, Any]
        try:
            raw = self._ours(history) if kind == OURS else self._stock(history)
        except FAILURES as error:
            self.log(f"round {number}: {kind} failed: {error}")
            collect(self.folder / f"failed-{name}")
            raw = {"failed": str(error)}
        finally:
            if not powered(FIRST):
                with contextlib.suppress(CommandFailed):
                    forget(SECOND)  # or the guest would first be copied to the host that comes back
        return {"round": number, "kind": kind, "guest": TYPE, **raw}

    def _home(self) -> None:
        whole()
        for host in HOSTS:
            until(f"{host}'s agent answers", lambda host=host: agent.answers(host), timeout=120)  # type: ignore[misc]
        # Xen hands out memory only after it has cleaned it.
        until(
            f"{SECOND} has room for a copy",
            lambda: agent.probe_reasons(FIRST, SECOND),
            lambda reasons: not reasons,
            timeout=300,
            passing=FAILURES,
        )

    def _ours(self, history: Path) -> dict[str, Any]:
        agent.ask(FIRST, "protect", timeout=SEED_TIMEOUT, domain=GUEST, peer=SECOND, wait=False)
        wait_protected(host=FIRST)
        until("the backup is named", lambda: agent.status(FIRST), lambda seen: not seen["reason"], timeout=AUTOMATIC)
        timeouts = parse(on(SECOND, "cat /etc/remus/agent.toml")).timeouts
        last = max((event["id"] for event in agent.ask(SECOND, "events", limit=1)["events"]), default=0)
        with scene(history) as stage:
            killed, before = stage.die()
            wall = now()
            common = stage.answered(killed, before)
            stage.client.wait_for(REPLIES, 600)
            client = stage.reply(killed)
            stage.client.stop()
            proof = stage.client.judge({"power loss": wall})
        events = agent.ask(SECOND, "events", domain=GUEST, since=last, limit=1000)["events"]
        return {
            **common,
            "configured": {name: getattr(timeouts, name) for name in ("detect", "silence", "heartbeat")},
            "events": events,
            "client": client,
            "proof": {"verdict": proof["verdict"], "reasons": proof["reasons"]},
        }

    def _stock(self, history: Path) -> dict[str, Any]:
        with _receiver() as pid:
            stock_remus.start(STOCK, TAKE)
            stock_remus.wait_for_checkpoints(STOCK, CHECKPOINTS, SEED_TIMEOUT)
            with scene(history) as stage:
                killed, before = stage.die()
                on(SECOND, f"(sleep {UNNOTICED}; kill -TERM {pid}) >/dev/null 2>&1 </dev/null &")
                common = stage.answered(killed, before)
                with contextlib.suppress(TooLate):  # it may have no connection any more: the guest went back in time
                    until("a reply to the client", lambda: stage.reply(killed)["first"], timeout=10)
                client = stage.reply(killed)
            receiver = until(
                "the report of the receiver",
                lambda: json.loads(on(SECOND, f"cat {FOLDER}/report.json")),
                timeout=60,
                passing=(ValueError,),
            )
        return {**common, "receiver": receiver, "client": client}


@contextlib.contextmanager
def _receiver() -> Iterator[int]:
    """Stock's backup on the second host, and what leads to it on the first; its process id. Nothing of it is left afterwards,
    nor of an `xl remus` on the first. What fails meanwhile is told with what they have said."""
    for host, file in ((FIRST, "stock_forward.py"), (SECOND, "stock_backup.py")):
        on(host, f"rm -rf {FOLDER} && mkdir -m 0700 {FOLDER}")
        on(host, f"cat >{FOLDER}/{file}", stdin=(HERE / file).read_text())
    command = f"python3 {FOLDER}/stock_backup.py {ADDRESSES[SECOND]} {PORT} >{FOLDER}/report.json 2>{FOLDER}/said"
    pid = int(on(SECOND, f"setsid {command} </dev/null & echo $!"))
    try:
        until("stock's receiver listens", lambda: f":{PORT} " in on(SECOND, "ss -Hltn"), timeout=120)
        yield pid
    except FAILURES as error:
        raise CommandFailed(f"{error}\n{_said(pid)}") from error
    finally:
        # The receiver and its xl first: the end of the stream lets them activate what they have.
        on(SECOND, f"kill -KILL {pid} 2>/dev/null; {stock_remus.KILL}; rm -rf {FOLDER}")
        if powered(FIRST):
            on(FIRST, f"{stock_remus.KILL}; rm -rf {FOLDER} {STOCK}")


def _said(pid: int) -> str:
    """What stock's sides have said, for failures."""
    texts = [on(SECOND, f"ps -o pid,stat,etime,args -p {pid}; cat {FOLDER}/said {FOLDER}/report.json 2>&1; true")]
    if powered(FIRST):
        texts.append(on(FIRST, f"tail -n 20 {STOCK}/xl.log {STOCK}/status 2>&1; true"))
    return "\n".join(texts)


@contextlib.contextmanager
def prepared(folder: Path, log: Callable[[str], None]) -> Iterator[Failovers]:
    """The pair with a witness, for as long as it is measured."""
    log("bringing the witness up")
    with witnessed():
        try:
            yield Failovers(folder, log)
        finally:
            log("putting the lab back")
