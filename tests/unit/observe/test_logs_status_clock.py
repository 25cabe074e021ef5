from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from remus_agent.adapters import clock
from remus_agent.adapters.clock import SystemClock
from remus_agent.machines import primary
from remus_agent.observe import logs
from remus_agent.observe.status import BackupState, PrimaryState, Seeding, State, Status
from remus_agent.services import report


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)


def test_each_line_has_its_priority(root: logging.Logger) -> None:
    stream = io.StringIO()
    logs.setup(logging.DEBUG, stream)
    logger = logging.getLogger("remus.test")
    logger.debug("d")
    logger.info("i")
    logger.warning("w")
    logger.error("e\nsecond line")
    logger.critical("c")
    assert stream.getvalue().splitlines() == [
        "<7>remus.test: d",
        "<6>remus.test: i",
        "<4>remus.test: w",
        "<3>remus.test: e",
        "<3>second line",
        "<2>remus.test: c",
    ]


def test_each_line_of_a_traceback_has_the_priority(root: logging.Logger) -> None:
    stream = io.StringIO()
    logs.setup(stream=stream)
    try:
        raise ValueError("reason")
    except ValueError:
        logging.getLogger("remus.test").exception("failed")
    written = stream.getvalue().splitlines()
    assert len(written) > 3
    assert all(line.startswith("<3>") for line in written)


def test_the_level_and_a_terminal(root: logging.Logger) -> None:
    stream = io.StringIO()
    logs.setup(logging.WARNING, stream, prefixes=False)
    logs.setup(logging.WARNING, stream, prefixes=False)
    logging.getLogger("remus.test").info("no")
    logging.getLogger("remus.test").warning("yes")
    assert stream.getvalue() == "warning: remus.test: yes\n"


def test_status_has_every_field_of_the_contract() -> None:
    status = Status(domain="redis1", role="primary", state="seeding", seeding=Seeding(done=1, total=2))
    shown = status.as_dict()
    names = "domain role state peer session generation epoch acked_epoch committed_epoch seeding held_bytes"
    names += (
        " held_packets dropped_packets last_ack_age interval_ms output_limit_bytes pages_last bytes_last down_ms_last"
    )
    names += " since reason disks members cost"
    assert list(shown) == names.split()
    assert shown["seeding"] == {"done": 1, "total": 2, "unit": "pages", "rate": 0.0, "left": None}
    assert shown["peer"] is None


def test_states_of_the_roles_are_states() -> None:
    assert {*get_args(PrimaryState), *get_args(BackupState), "unprotected", "paused"} == set(get_args(State))


def test_the_clock_is_the_one_that_goes_on_while_the_host_sleeps() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    now = SystemClock().now()
    assert before <= now <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_sleeping_is_measured_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host sleeps for an hour in the middle of a two-hour sleep: no more than the rest is waited for."""
    slept: list[float] = []
    system = SystemClock()
    state = {"now": 1000.0}

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        state["now"] += seconds + (3600.0 if len(slept) == 100 else 0.0)

    monkeypatch.setattr(SystemClock, "now", lambda _: state["now"])
    monkeypatch.setattr(clock.asyncio, "sleep", sleep)
    _finish(system.sleep(7200.0))
    assert state["now"] == pytest.approx(8200.0)
    assert sum(slept) == pytest.approx(3600.0)


def _finish(coroutine: Any) -> None:
    with pytest.raises(StopIteration):
        coroutine.send(None)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.02])
def test_short_sleeps(seconds: float) -> None:
    system = SystemClock()
    began = system.now()
    asyncio.run(system.sleep(seconds))
    assert system.now() - began >= seconds


def test_only_a_guest_that_runs_on_is_called_unprotected() -> None:
    """Whoever asks both hosts takes it for running there."""
    assert [state for state, word in report._PRIMARY.items() if word == "unprotected"] == [primary.State.STOPPED]
