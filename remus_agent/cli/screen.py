"""A terminal that a command paints again and again, in plain escape codes that every terminal of today knows, and keys from it.

Whatever ends the command, the terminal is left as it was: a signal that ends it becomes an exception, Ctrl-Z gives the terminal
back until the command goes on. Nothing can be done about SIGKILL; `reset` helps then.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import tty
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, NoReturn, Self

_ENTER: Final = b"\x1b[?1049h\x1b[?25l"
"""Another page of the terminal than the one with the shell's lines, and no cursor."""
_LEAVE: Final = b"\x1b[?25h\x1b[?1049l"
_READ_BYTES: Final = 256
ENDS: Final = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end it, with 128 and their number as the exit code."""


@dataclass(frozen=True, slots=True)
class Span:
    """Text in one colour. text: without control characters. colour: number of an SGR code; 0: as it is."""

    text: str
    colour: int = 0


Line = Sequence[Span]


class Screen:
    """The terminal of two descriptors. keys: where they come from; None: from nowhere. For the main thread only."""

    def __init__(self, out: int, keys: int | None, *, colours: bool = True) -> None:
        self._out = out
        self._keys = keys
        self._colours = colours
        self._usual: list[Any] | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._told, self._tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = signal.set_wakeup_fd(self._tell, warn_on_full_buffer=False)
        for number in ENDS:
            self._handlers[number] = signal.signal(number, _end)
        self._handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, _heard)
        self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._stop)
        try:
            self._take()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before)
        os.close(self._tell)
        os.close(self._told)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as of now."""
        try:
            columns, lines = os.get_terminal_size(self._out)
        except OSError:
            columns, lines = 0, 0
        return columns or 80, lines or 24  # a serial console says that it has none

    def paint(self, lines: Sequence[Line]) -> None:
        """Show these lines, cut to what the terminal has room for."""
        columns, rows = self.size
        shown = [_cut(line, columns, colours=self._colours) for line in lines[:rows]]
        # No line break after the last row: it would scroll everything by one.
        rest = "\r\n\x1b[J" if len(shown) < rows else ""
        self._write("\x1b[H" + "\r\n".join(f"\x1b[2K{line}" for line in shown) + rest)

    def wait(self, seconds: float) -> bytes:
        """The keys that were pressed; empty when the time is over, or sooner when a signal came (the terminal has
        another size). Raises EOFError
        when there is no terminal any more."""
        sources = [self._told] if self._keys is None else [self._told, self._keys]
        ready, _, _ = select.select(sources, [], [], max(0.0, seconds))
        if self._told in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._told, _READ_BYTES)
        if self._keys is None or self._keys not in ready:
            return b""
        pressed = os.read(self._keys, _READ_BYTES)
        if not pressed:
            raise EOFError
        return pressed

    def _take(self) -> None:
        if self._keys is not None:
            self._usual = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys, termios.TCSANOW)
        self._write(_ENTER.decode())

    def _give_back(self) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone, and then there is nothing to leave in order
            os.write(self._out, _LEAVE)
        usual, self._usual = self._usual, None
        if usual is not None and self._keys is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._keys, termios.TCSADRAIN, usual)

    def _stop(self, *_: object) -> None:
        """Ctrl-Z: the shell gets its terminal until it lets this process go on."""
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._stop)
        self._take()

    def _write(self, text: str) -> None:
        left = memoryview(text.encode(errors="replace"))
        while left:
            left = left[os.write(self._out, left) :]


def _cut(line: Line, columns: int, *, colours: bool) -> str:
    shown, room = "", columns
    for span in line:
        text = span.text[:room]
        room -= len(text)
        shown += f"\x1b[{span.colour}m{text}\x1b[0m" if colours and span.colour and text else text
    return shown


def _heard(_number: int, _frame: FrameType | None) -> None:
    """`wait` returns."""


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
