"""What is counted for which guest, by a /proc of the test's, and by the kernel's own."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_proc import FakeProc

from remus_agent.adapters.ledger import FRESH_SECONDS, Ledger
from remus_agent.adapters.proc import Proc, Times
from remus_agent.cost_ports import Cost, Part
from tests.burning import burn

TAP, XL, HELPER = 71, 72, 73
KIB = 1024


@pytest.fixture
def kernel(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


class Clock:
    """Monotonic seconds."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(kernel: FakeProc, clock: Clock) -> Ledger:
    return Ledger(Proc(kernel.root), clock)


def of(ledger: Ledger, *guests: str) -> dict[Part, Cost] | None:
    """What these guests cost."""
    found = asyncio.run(ledger.read())
    return None if found is None else found.of(guests)


def shared(ledger: Ledger) -> Cost | None:
    found = asyncio.run(ledger.read())
    return None if found is None else found.shared


def test_a_process_and_all_that_it_starts(kernel: FakeProc, ledger: Ledger) -> None:
    """`xl restore` leaves the guest's pages to a helper; once it has waited for one, that one's time is in its own."""
    kernel.process(XL, 1.0, kib=3000, waited=0.5, children=[HELPER], name="xl) R 1 (x")
    kernel.process(HELPER, 4.0, kib=2000)
    ledger.open("web1", "copy").process(XL)
    assert of(ledger, "web1") == {"copy": Cost(5.5, 5000 * KIB)}
    kernel.ends(HELPER)
    kernel.process(XL, 1.0, kib=3000, waited=4.75)
    assert of(ledger, "web1") == {"copy": Cost(5.75, 5000 * KIB)}, "its memory is as it was when it was last read"


def test_a_thread_counts_without_the_children_of_its_process(kernel: FakeProc, ledger: Ledger) -> None:
    kernel.thread(threading.get_native_id(), 2.5, children=100.0)
    ledger.open("web1", "checkpoints").thread()
    assert of(ledger, "web1") == {"checkpoints": Cost(2.5, 0)}


def test_memory_of_the_agents_own(ledger: Ledger) -> None:
    entry = ledger.open("web1", "checkpoints")
    entry.holds(lambda: 8 * KIB)
    assert of(ledger, "web1") == {"checkpoints": Cost(0.0, 8 * KIB)}
    entry.close()
    assert of(ledger, "web1") == {"checkpoints": Cost(0.0, 0)}


def test_guests_do_not_pay_for_each_other(kernel: FakeProc, ledger: Ledger) -> None:
    for number in range(10):
        kernel.process(100 + number, float(number), kib=number)
        ledger.open(f"web{number}", "disks").process(100 + number)
    assert [of(ledger, f"web{number}") for number in range(10)] == [
        {"disks": Cost(float(number), number * KIB)} for number in range(10)
    ]
    assert of(ledger, "web2", "web3") == {"disks": Cost(5.0, 5 * KIB)}
    assert of(ledger, "db1") == {}


def test_each_is_asked_once_for_its_guest_and_for_what_is_shared(kernel: FakeProc, clock: Clock) -> None:
    asked: list[int] = []

    class Counted(Proc):
        def process(self, number: int) -> Times | None:
            asked.append(number)
            return super().process(number)

    kernel.process(TAP, 1.0, kib=10)
    ledger = Ledger(Counted(kernel.root), clock)
    ledger.open("web1", "disks").process(TAP)
    asked.clear()
    found = asyncio.run(ledger.read())
    assert found is not None
    assert (found.of(["web1"]), found.shared) == ({"disks": Cost(1.0, 10 * KIB)}, Cost())
    assert asked == [TAP]


def test_what_has_ended_counts_for_good(kernel: FakeProc, ledger: Ledger) -> None:
    """A session follows the other: the counter goes on, and only what is there has memory."""
    for seconds in (3.0, 2.0):
        kernel.process(TAP, seconds, kib=38000)
        entry = ledger.open("web1", "disks")
        entry.process(TAP)
        entry.close()
        kernel.ends(TAP)
    assert of(ledger, "web1") == {"disks": Cost(5.0, 0)}
    entry.close()
    assert of(ledger, "web1") == {"disks": Cost(5.0, 0)}, "closed twice is counted once"


def test_one_that_ends_by_itself_keeps_what_was_last_seen(kernel: FakeProc, ledger: Ledger) -> None:
    kernel.process(TAP, 1.0, kib=10)
    entry = ledger.open("web1", "disks")
    entry.process(TAP)
    entry.look()
    kernel.ends(TAP)
    assert of(ledger, "web1") == {"disks": Cost(1.0, 0)}


def test_another_process_by_the_same_number_is_not_its(kernel: FakeProc, ledger: Ledger) -> None:
    kernel.process(TAP, 1.0, kib=10)
    ledger.open("web1", "disks").process(TAP)
    assert of(ledger, "web1") == {"disks": Cost(1.0, 10 * KIB)}
    kernel.process(TAP, 99.0, kib=999, started=200)
    assert of(ledger, "web1") == {"disks": Cost(1.0, 0)}


def test_one_that_is_gone_already_is_nobody(ledger: Ledger) -> None:
    ledger.open("web1", "disks").process(TAP)
    assert of(ledger, "web1") == {}


def test_memory_of_processes_is_read_now_and_then(kernel: FakeProc, ledger: Ledger, clock: Clock) -> None:
    kernel.process(TAP, 1.0, kib=10)
    ledger.open("web1", "disks").process(TAP)
    of(ledger, "web1")
    kernel.process(TAP, 2.0, kib=20)
    clock.now += FRESH_SECONDS / 2
    assert of(ledger, "web1") == {"disks": Cost(2.0, 10 * KIB)}
    clock.now += FRESH_SECONDS / 2
    assert of(ledger, "web1") == {"disks": Cost(2.0, 20 * KIB)}


def test_a_zombie_has_time_and_no_memory(kernel: FakeProc, ledger: Ledger) -> None:
    kernel.process(TAP, 1.0, kib=10)
    (kernel.root / f"{TAP}/smaps_rollup").write_text("")
    ledger.open("web1", "disks").process(TAP)
    assert of(ledger, "web1") == {"disks": Cost(1.0, 0)}


def test_what_is_shared_is_the_rest(kernel: FakeProc, ledger: Ledger) -> None:
    """The agent's threads and memory that are not there for one guest; processes of its taps are no part of it."""
    page = os.sysconf("SC_PAGE_SIZE")
    kernel.thread(threading.get_native_id(), 4.0)
    kernel.process(TAP, 9.0, kib=900)
    kernel.this(10.0, 100)
    source, tap = ledger.open("web1", "checkpoints"), ledger.open("web1", "disks")
    source.thread()
    source.holds(lambda: 40 * page)
    source.adds(lambda: 0.5)
    tap.process(TAP)
    assert shared(ledger) == Cost(5.5, 60 * page)
    source.close()
    assert shared(ledger) == Cost(5.5, 100 * page)


def test_what_is_shared_never_goes_back(kernel: FakeProc, ledger: Ledger) -> None:
    """Whole ticks of a thread may be counted before those of the process: a counter that went back would look like a restart."""
    number = threading.get_native_id()
    kernel.thread(number, 4.0)
    kernel.this(10.0, 100)
    ledger.open("web1", "checkpoints").thread()
    assert shared(ledger) == Cost(6.0, 100 * os.sysconf("SC_PAGE_SIZE"))
    kernel.thread(number, 4.01)
    found = shared(ledger)
    assert found is not None
    assert found.cpu_seconds == 6.0


def test_what_cannot_be_read_is_not_known(kernel: FakeProc, ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    """And is said once, not every second."""
    caplog.set_level(logging.WARNING)
    kernel.process(TAP, 1.0, kib=10)
    ledger.open("web1", "disks").process(TAP)
    (kernel.root / f"{TAP}/smaps_rollup").write_text("no such thing\n")
    assert [of(ledger, "web1"), of(ledger, "web1"), shared(ledger)] == [None, None, None]
    assert len(caplog.records) == 1
    assert "has no Pss" in caplog.text
    kernel.process(TAP, 1.0, kib=10)
    assert of(ledger, "web1") == {"disks": Cost(1.0, 10 * KIB)}


def test_a_kernel_that_does_not_answer_is_not_waited_for(kernel: FakeProc, caplog: pytest.LogCaptureFixture) -> None:
    """Nor asked again before it has: a status says the rest, and says it at once."""
    caplog.set_level(logging.WARNING)
    kernel.process(TAP, 1.0, kib=10)
    path = kernel.root / f"{TAP}/smaps_rollup"
    path.unlink()
    os.mkfifo(path)
    ledger = Ledger(Proc(kernel.root), patience=0.2)
    ledger.open("web1", "disks").process(TAP)

    async def ask() -> None:
        assert await ledger.read() is None
        before = time.monotonic()
        assert await ledger.read() is None
        assert time.monotonic() - before < 0.1
        assert len(caplog.records) == 1
        path.write_text("Pss: 10 kB\n")  # the one who reads gets it, and goes on
        path.unlink()
        kernel.process(TAP, 1.0, kib=10)
        late = ledger._late
        assert late is not None
        await asyncio.wait([late], timeout=20)
        found = await ledger.read()
        assert found is not None
        assert found.guests == {"web1": {"disks": Cost(1.0, 10 * KIB)}}

    asyncio.run(ask())


def test_who_works_for_a_guest_does_not_depend_on_being_counted(
    kernel: FakeProc, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    path = kernel.root / f"self/task/{threading.get_native_id()}/stat"
    path.parent.mkdir(parents=True)
    path.write_text("1 (x) S 1\n")
    entry = ledger.open("web1", "checkpoints")
    entry.thread()
    entry.close()
    assert "fields behind the name" in caplog.text
    assert of(ledger, "web1") == {}


# By the kernel's own


@pytest.fixture
def child() -> Iterator[int]:
    """A process that has used some time and memory, and now waits."""
    work = "import time, sys\nkept = b'x' * (8 << 20)\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate()


def test_a_real_process(child: int) -> None:
    ledger = Ledger()
    ledger.open("web1", "disks").process(child)
    found = of(ledger, "web1")
    assert found is not None
    assert 0.15 <= found["disks"].cpu_seconds < 60
    assert 8 << 20 <= found["disks"].memory_bytes < 1 << 30


def test_real_threads_that_end() -> None:
    """The second one works while the first one is gone: both count, and neither is part of what is shared."""
    ledger = Ledger()
    before = shared(ledger)
    for _ in range(2):
        entry = ledger.open("web1", "checkpoints")
        with ThreadPoolExecutor(1, initializer=entry.thread) as executor:
            executor.submit(burn, 0.2).result()
            executor.submit(entry.close)
    found, after = of(ledger, "web1"), shared(ledger)
    assert found is not None
    assert before is not None
    assert after is not None
    assert 0.35 <= found["checkpoints"].cpu_seconds < 60
    assert after.cpu_seconds - before.cpu_seconds < time.process_time() - 0.35
    assert after.memory_bytes > 1 << 20
