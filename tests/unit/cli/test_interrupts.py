"""A signal ends a read, whatever became of the exception that its handler raised."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from remus_agent.cli.interrupts import Interrupts


@pytest.fixture
def idle() -> Iterator[int]:
    """A pipe from which nothing can be read."""
    read, write = os.pipe()
    yield read
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit), (signal.SIGHUP, SystemExit)]
)
def test_a_signal_whose_exception_was_dropped(idle: int, number: signal.Signals, error: type[BaseException]) -> None:
    before = signal.signal(number, lambda *_: None)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), number)
            with pytest.raises(error) as found:
                interrupts.wait(idle)
    finally:
        signal.signal(number, before)
    if isinstance(found.value, SystemExit):
        assert found.value.code == 128 + number


def test_what_can_be_read_is_waited_for() -> None:
    read, write = os.pipe()
    os.write(write, b"x")
    with Interrupts() as interrupts:
        interrupts.wait(read)
        os.close(write)
        os.read(read, 1)
        interrupts.wait(read)  # the end of the pipe
    os.close(read)


def test_whoever_was_told_of_signals_before_is_told_again(idle: int) -> None:
    with Interrupts() as outer:
        with Interrupts():
            pass
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                outer.wait(idle)
        finally:
            signal.signal(signal.SIGINT, before)
