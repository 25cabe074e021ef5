"""A xenstored that does not answer keeps no guest down: the supervisor looks after all of them without it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_xen import DOMID, UUID, Hanging
from test_supervisor import REQUEST, Running

from remus_agent import supervisor as module
from remus_agent.adapters.xen import structs as s
from remus_agent.adapters.xen.errands import Errands
from remus_agent.errors import HypervisorError

OTHER = DOMID + 1


class TwoGuests(Hanging):
    """Another guest of the same agent. other: why it is down; None: it runs."""

    other: int | None = None

    def xc_domain_getinfolist(self, handle: int, first: int, most: int, out: Any) -> int:
        if first != OTHER:
            return super().xc_domain_getinfolist(handle, first, most, out)
        mine, self.shutdown = self.shutdown, self.other
        super().xc_domain_getinfolist(handle, DOMID, most, out)
        self.shutdown = mine
        out._obj.domain = OTHER
        return 1

    def xc_domain_resume(self, handle: int, domid: int, fast: int) -> int:
        if domid != OTHER:
            return super().xc_domain_resume(handle, domid, fast)
        self.other = None
        return 0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.05)


@pytest.fixture
def xen() -> Iterator[TwoGuests]:
    fake = TwoGuests()
    yield fake
    fake.answers.set()


@pytest.fixture
def running(xen: TwoGuests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    made = Running(xen, tmp_path, monkeypatch)
    yield made
    made.close()


def passes(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


@pytest.mark.parametrize("call", ["xs_resume_domain", "xs_transaction_start"])
def test_every_guest_of_a_killed_agent_is_resumed(xen: TwoGuests, running: Running, call: str) -> None:
    line = running.connect()
    for domid in (DOMID, OTHER):
        running.ask(line, {"watch": domid, "uuid": UUID})
    xen.shutdown, xen.other, xen.hangs = s.Shutdown.SUSPEND, s.Shutdown.SUSPEND, {call}
    line.close()
    running.until(lambda: xen.shutdown is None and xen.other is None)
    assert xen.held.wait(30)
    xen.hangs = set()
    xen.answers.set()
    running.settle()
    assert xen.count("xs_resume_domain") == 2


def test_a_guest_that_may_yet_obey_is_not_given_up(
    xen: TwoGuests, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what it finds when xenstored answers again, until the request is withdrawn."""
    monkeypatch.setattr(module, "LOOK_AFTER", 0.1)
    line = running.connect()
    running.ask(line, {"watch": DOMID, "uuid": UUID})
    xen.store[REQUEST], xen.hangs = "suspend", {"xs_transaction_start"}
    line.close()
    running.until(passes(0.4))
    assert running.saved() == [DOMID]
    xen.hangs = set()
    xen.answers.set()
    running.until(lambda: running.saved() == [])
    assert xen.store[REQUEST] == ""


def test_a_guest_that_goes_down_meanwhile_is_resumed(xen: TwoGuests, running: Running) -> None:
    line = running.connect()
    running.ask(line, {"watch": DOMID, "uuid": UUID})
    xen.hangs = {"xs_transaction_start"}
    line.close()
    running.until(xen.held.is_set)
    xen.shutdown = s.Shutdown.SUSPEND
    running.until(lambda: xen.shutdown is None)


def test_nobody_is_to_suspend_a_guest_whose_old_request_may_yet_be_withdrawn(xen: TwoGuests, running: Running) -> None:
    line = running.connect()
    running.ask(line, {"watch": DOMID, "uuid": UUID})
    xen.hangs = {"xs_transaction_start"}
    line.close()
    running.until(xen.held.is_set)
    again = running.connect()
    answer = running.ask(again, {"watch": DOMID, "uuid": UUID})
    assert answer["ok"] is False
    assert f"xenstored has not answered yet what it was asked about domain {DOMID}" in str(answer["error"])
    assert running.ask(again, {"watch": OTHER, "uuid": UUID}) == {"ok": True}
    xen.hangs = set()
    xen.answers.set()
    running.settle()
    assert running.ask(again, {"watch": DOMID, "uuid": UUID}) == {"ok": True}


def test_a_supervisor_that_starts_meanwhile_looks_after_what_it_inherits(
    xen: TwoGuests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECONNECT", 0.0)
    entry = {"domid": DOMID, "uuid": UUID, "pid": 2**22 + 1, "started": 1}
    (tmp_path / "watched.json").write_text(json.dumps([entry]))
    xen.hangs, xen.shutdown = {"xs_open"}, s.Shutdown.SUSPEND
    running = Running(xen, tmp_path, monkeypatch)
    running.supervisor.inherit()
    running.until(lambda: xen.shutdown is None)
    running.close()


def test_a_xenstored_that_cannot_be_reached_is_an_error_at_the_start(
    xen: TwoGuests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 30.0)
    monkeypatch.setattr(xen, "xs_open", lambda *_: 0, raising=False)
    with pytest.raises(HypervisorError, match="xs_open"):
        Running(xen, tmp_path, monkeypatch)


def test_an_errand_that_fails_keeps_none_from_being_done() -> None:
    done: list[int] = []

    class Store:
        def close(self) -> None:
            done.append(-1)

    def fails(_: object) -> None:
        raise HypervisorError("xenstored has closed the connection")

    def breaks(_: object) -> None:
        raise ZeroDivisionError

    errands = Errands(Store)  # type: ignore[arg-type]
    failed = errands.ask(1, fails)
    errands.ask(2, breaks)
    errands.ask(3, lambda _: done.append(3))
    assert errands.settle(30.0)
    assert failed.error is not None
    assert done == [-1, 3], "the connection is made anew"
    assert not errands.open(3)
