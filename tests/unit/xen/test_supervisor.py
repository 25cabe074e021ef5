"""A guest whose agent was killed runs again; nobody else's guest is touched."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_qemu import FakeQemu
from fake_xen import DOMID, UUID, FakeXen

from remus_agent import faults
from remus_agent import supervisor as module
from remus_agent.adapters.xen import structs as s
from remus_agent.adapters.xen.device_model import socket_of
from remus_agent.adapters.xen.guard import Guard, is_there
from remus_agent.supervisor import Supervisor, Xen

REQUEST = f"/local/domain/{DOMID}/control/shutdown"


class Running:
    """A supervisor whose loop is turned by the test."""

    def __init__(self, xen: FakeXen, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module.xen, "load", lambda only: xen.libs)
        self.run = run
        self.patience = 5.0
        self.supervisor = Supervisor(Xen(run), run)
        self.lines: list[socket.socket] = []

    def until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.patience
        while not reached():
            assert time.monotonic() < deadline, "not reached in time"
            self.supervisor.step()

    def connect(self) -> socket.socket:
        line = socket.socket(socket.AF_UNIX)
        line.connect(str(self.run / "supervisor.sock"))
        line.setblocking(False)
        self.lines.append(line)
        return line

    def ask(self, line: socket.socket, request: object) -> dict[str, object]:
        line.send(json.dumps(request).encode() + b"\n")
        answer = b""

        def answered() -> bool:
            nonlocal answer
            try:
                answer += line.recv(4096)
            except BlockingIOError:
                return False
            return answer.endswith(b"\n")

        self.until(answered)
        return dict(json.loads(answer))

    def settle(self) -> None:
        """Until xenstored has answered everything."""
        while not self.supervisor._xen._errands.settle(self.patience):
            pass

    def saved(self) -> list[int]:
        return [entry["domid"] for entry in json.loads((self.run / "watched.json").read_bytes())]

    def close(self) -> None:
        for line in self.lines:
            line.close()
        self.supervisor.close()


@pytest.fixture
def xen() -> FakeXen:
    return FakeXen()


@pytest.fixture
def running(xen: FakeXen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    made = Running(xen, tmp_path, monkeypatch)
    yield made
    made.close()


def test_a_guest_left_suspended_is_resumed(xen: FakeXen, running: Running) -> None:
    line = running.connect()
    assert running.ask(line, {"watch": DOMID, "uuid": UUID}) == {"ok": True}
    assert running.saved() == [DOMID]
    xen.shutdown, xen.logdirty, xen.subscribed = s.Shutdown.SUSPEND, True, 9
    line.close()
    running.until(lambda: xen.shutdown is None)
    running.settle()
    assert (xen.logdirty, xen.subscribed, xen.count("xs_resume_domain")) == (False, 0, 1)
    assert running.saved() == []


def test_a_guest_that_is_down_does_not_wait_for_xenstored(xen: FakeXen, running: Running) -> None:
    line = running.connect()
    running.ask(line, {"watch": DOMID, "uuid": UUID})
    xen.shutdown = s.Shutdown.SUSPEND
    xen.calls.clear()
    line.close()
    running.until(lambda: "xs_transaction_end" in xen.calls)
    before = xen.calls[: xen.calls.index("xc_domain_resume")]
    assert not [call for call in before if call.startswith("xs_")]


@pytest.mark.parametrize("answers", [True, False])
def test_a_device_model_goes_on_with_its_guest(xen: FakeXen, running: Running, *, answers: bool) -> None:
    line = running.connect()
    running.ask(line, {"watch": DOMID, "uuid": UUID})
    with FakeQemu(socket_of(DOMID, running.run)) as qemu:
        qemu.running = False
        qemu.refuses.update(() if answers else ("cont",))
        xen.shutdown = s.Shutdown.SUSPEND
        line.close()
        running.until(lambda: xen.shutdown is None)
        assert qemu.running is answers
        assert qemu.names[0] == "cont"


def test_seeded_fault_nobody_resumes_leaves_a_guest_suspended(
    xen: FakeXen, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seeded fault of G4: the test above must be able to fail."""
    monkeypatch.setenv(faults.VARIABLE, faults.FaultName.NOBODY_RESUMES.value)
    running.patience = 0.5
    with pytest.raises(AssertionError, match="not reached in time"):
        test_a_guest_left_suspended_is_resumed(xen, running)


def test_a_guest_that_goes_down_after_its_agent_died_is_resumed(xen: FakeXen, running: Running) -> None:
    line = running.connect()
    running.ask(line, {"watch": DOMID, "uuid": UUID})
    xen.store[REQUEST] = "suspend"
    line.close()
    running.until(lambda: xen.store[REQUEST] == "")
    xen.shutdown = s.Shutdown.SUSPEND
    running.until(lambda: xen.shutdown is None)


@pytest.mark.parametrize("reason", [s.Shutdown.POWEROFF, s.Shutdown.CRASH])
def test_a_guest_that_ended_is_left_alone(
    xen: FakeXen, running: Running, reason: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_AFTER", 0.3)
    line = running.connect()
    running.ask(line, {"watch": DOMID, "uuid": UUID})
    xen.shutdown = reason
    line.close()
    running.until(lambda: running.saved() == [])
    assert (xen.shutdown, xen.count("xc_domain_resume")) == (reason, 0)


def test_a_guest_that_cannot_be_resumed_is_not_given_up(
    xen: FakeXen, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_AFTER", 0.2)
    line = running.connect()
    running.ask(line, {"watch": DOMID, "uuid": UUID})
    xen.shutdown = s.Shutdown.SUSPEND
    xen.failing.add("xc_domain_resume")
    line.close()
    after = time.monotonic() + 0.6
    running.until(lambda: time.monotonic() > after)
    assert running.saved() == [DOMID]
    xen.failing.clear()
    running.until(lambda: xen.shutdown is None)
    assert running.saved() == []


def test_another_guest_with_the_same_id_is_left_alone(xen: FakeXen, running: Running) -> None:
    line = running.connect()
    running.ask(line, {"watch": DOMID, "uuid": UUID.replace("2", "3")})
    xen.shutdown = s.Shutdown.SUSPEND
    line.close()
    running.until(lambda: running.saved() == [])
    assert (xen.shutdown, xen.count("xc_shadow_control")) == (s.Shutdown.SUSPEND, 0)


def test_what_is_no_longer_watched_is_left_alone(xen: FakeXen, running: Running) -> None:
    line = running.connect()
    running.ask(line, {"watch": DOMID, "uuid": UUID})
    running.ask(line, {"unwatch": DOMID})
    xen.shutdown = s.Shutdown.SUSPEND
    line.close()
    other = running.connect()
    running.ask(other, {"unwatch": DOMID + 1})
    assert xen.shutdown == s.Shutdown.SUSPEND


def test_an_agent_that_comes_back_takes_its_guest_over(xen: FakeXen, running: Running) -> None:
    line = running.connect()
    running.ask(line, {"watch": DOMID, "uuid": UUID})
    line.close()
    running.until(lambda: "xc_shadow_control" in xen.calls)
    again = running.connect()
    running.ask(again, {"watch": DOMID, "uuid": UUID})
    xen.shutdown = s.Shutdown.SUSPEND  # the new agent's checkpoint
    running.ask(again, {"watch": DOMID, "uuid": UUID})
    assert xen.shutdown == s.Shutdown.SUSPEND


@pytest.mark.parametrize(
    "request_",
    [[], 1, {}, {"watch": "7", "uuid": UUID}, {"watch": 0, "uuid": UUID}, {"watch": 7, "uuid": UUID, "x": 1}],
)
def test_nonsense_is_refused_and_survived(running: Running, request_: object) -> None:
    line = running.connect()
    assert running.ask(line, request_)["ok"] is False
    assert running.ask(line, {"watch": DOMID, "uuid": UUID}) == {"ok": True}


def test_it_says_that_it_lives(running: Running) -> None:
    assert running.ask(running.connect(), {"alive": True}) == {"ok": True}


def test_an_endless_line_ends_the_connection(running: Running) -> None:
    line = running.connect()
    line.send(b"x" * 5000)

    def ended() -> bool:
        try:
            return line.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    running.until(ended)


def test_a_restarted_supervisor_looks_after_what_it_inherits(
    xen: FakeXen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECONNECT", 0.1)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as agent:
        entry = {"domid": DOMID, "uuid": UUID, "pid": agent.pid, "started": module.process_start(agent.pid)}
        (tmp_path / "watched.json").write_text(json.dumps([entry]))
        running = Running(xen, tmp_path, monkeypatch)
        running.supervisor.inherit()
        xen.shutdown = s.Shutdown.SUSPEND
        deadline = time.monotonic() + 0.4
        running.until(lambda: time.monotonic() > deadline)
        assert xen.shutdown == s.Shutdown.SUSPEND  # its agent lives and is in the middle of a checkpoint
        agent.kill()
        agent.wait()
        running.until(lambda: xen.shutdown is None)
    running.close()


def test_a_damaged_file_is_survived(xen: FakeXen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "watched.json").write_text("{")
    running = Running(xen, tmp_path, monkeypatch)
    running.supervisor.inherit()
    assert running.ask(running.connect(), {"watch": DOMID, "uuid": UUID}) == {"ok": True}
    running.close()


def test_a_call_that_fails_is_tried_again(xen: FakeXen, running: Running) -> None:
    line = running.connect()
    running.ask(line, {"watch": DOMID, "uuid": UUID})
    xen.shutdown, xen.failing = s.Shutdown.SUSPEND, {"xc_domain_resume"}
    line.close()
    running.until(lambda: xen.count("xc_domain_resume") >= 2)
    xen.failing = set()
    running.until(lambda: xen.shutdown is None)


def test_the_guard_speaks_its_language(running: Running) -> None:
    import threading

    guard = Guard(running.run / "supervisor.sock", DOMID, UUID, "web1")
    done = threading.Event()

    def talk() -> None:
        guard.watch()
        guard.ensure()
        guard.unwatch()
        done.set()
        with socket.socket(socket.AF_UNIX) as poke:  # the loop may be waiting, with nothing left to hear
            poke.connect(str(running.run / "supervisor.sock"))

    talking = threading.Thread(target=talk, daemon=True)
    talking.start()
    running.until(done.is_set)
    assert running.saved() == []
    talking.join(10)


def test_whether_it_is_there_can_be_seen(running: Running) -> None:
    path = running.run / "supervisor.sock"
    assert is_there(path)
    running.supervisor.step()
    assert len(running.supervisor._clients) == 1
    running.until(lambda: not running.supervisor._clients)
    assert not is_there(path.with_name("other.sock"))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path.with_name("dead.sock")))
    assert not is_there(path.with_name("dead.sock"))


def test_process_ids_are_told_apart() -> None:
    own = module.process_start(os.getpid())
    assert own is not None
    assert own > 0
    assert module.process_start(2**22 + 1) is None


def test_the_supervisor_needs_only_the_standard_library() -> None:
    code = (
        "import sys, remus_agent.supervisor\n"
        "heavy = {'numpy', 'msgspec', 'pyroute2', 'asyncio', 'xxhash'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
