"""Signals that end a command, of which none is lost between two reads.

Python turns a signal into an exception between two of its instructions. One that comes just before a read blocks waits as
long as the read; and a library in C that calls back into Python may drop the exception (numpy does, where it asks an
operand for its array interface)."""

from __future__ import annotations

import os
import select
import signal
from typing import Final, Self

_SIGNALS_AT_ONCE: Final = 64


class Interrupts:
    """While it is entered, `wait` knows of every signal that has a handler. For the main thread only."""

    def __enter__(self) -> Self:
        self._told, self._tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = signal.set_wakeup_fd(self._tell, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._before)
        os.close(self._tell)
        os.close(self._told)

    def wait(self, fd: int) -> None:
        """Until fd can be read. Raises what the handler of a signal should have: KeyboardInterrupt, or SystemExit with the
        code that shells give to a process that died from it."""
        poll = select.poll()
        poll.register(self._told, select.POLLIN)
        poll.register(fd, select.POLLIN)
        ready = dict(poll.poll())
        if self._told in ready:
            numbers = os.read(self._told, _SIGNALS_AT_ONCE)
            if signal.SIGINT in numbers:
                raise KeyboardInterrupt
            raise SystemExit(128 + numbers[0])
