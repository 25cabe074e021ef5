"""A terminal for programs under test: a pty, and a reader of the few escape codes that `remusctl watch` writes."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

_CODES = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])")

PATIENCE = 120.0
"""Seconds for what comes at once on a machine that is not busy."""


class TerminalText(io.StringIO):
    """Standard input or output that counts as a terminal, and is none."""

    def isatty(self) -> bool:
        return True


class Terminal:
    """A program on a pty of this size, in a session of its own, as a shell on that terminal would start it."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], *, columns: int = 80, rows: int = 24, keys: bool = True
    ) -> None:
        self.columns, self.rows = columns, rows
        self._end, self._inner = pty.openpty()
        self.written = ""
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self._inner)
        self.process = subprocess.Popen(
            # A shell lets what it runs in the background ignore Ctrl-C, and what that starts as well: these tests, for one.
            ["env", "--default-signal=INT", *(("setsid", "--ctty") if keys else ()), *command],
            stdin=self._inner if keys else subprocess.DEVNULL,
            stdout=self._inner,
            stderr=self._inner,
            env=dict(env) | {"TERM": "xterm"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        os.close(self._end)
        os.close(self._inner)

    @property
    def modes(self) -> list[Any]:
        """How the terminal treats keys now."""
        return termios.tcgetattr(self._inner)

    def resize(self, columns: int, rows: int) -> None:
        """Another size; the program hears of it, and what it wrote before is not shown any more."""
        self.columns, self.rows = columns, rows
        if self.written:
            self.read()
        self._since = len(self.written)
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        """As if typed."""
        os.write(self._end, keys.encode())

    def read(self, seconds: float = 0.05) -> None:
        """Take in what the program writes meanwhile."""
        while select.select([self._end], [], [], seconds)[0]:
            try:
                data = os.read(self._end, 65536)
            except OSError:
                return
            self.written += data.decode()

    def until(self, text: str, seconds: float = PATIENCE) -> list[str]:
        """Wait until this is shown; the page then."""
        self.wait_for(lambda: text in "\n".join(self.page()), text, seconds)
        return self.page()

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Take in what the program writes until the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what!r} never came, but:\n" + "\n".join(self.page())
            self.read()

    def ended(self, seconds: float = PATIENCE) -> int:
        """The exit code of the program, which ends by itself."""
        self.wait_for(lambda: self.process.poll() is not None, "the end of it", seconds)
        self.read()
        return self.process.returncode

    def page(self) -> list[str]:
        """What the terminal shows, by what was written since the page was painted last."""
        shown = self.written[self._since :].rpartition("\x1b[H")[2]
        cells = [[" "] * self.columns for _ in range(self.rows)]
        row = column = 0
        at = 0
        while at < len(shown):
            code = _CODES.match(shown, at)
            if code is not None:
                at = code.end()
                match code[2]:
                    case "H":
                        row = column = 0
                    case "K":
                        cells[row] = [" "] * self.columns
                    case "J":
                        cells[row][column:] = [" "] * (self.columns - column)
                        for below in range(row + 1, self.rows):
                            cells[below] = [" "] * self.columns
                continue
            if shown[at] == "\r":
                column = 0
            elif shown[at] == "\n":
                row += 1
                assert row < self.rows, "it scrolls"
            elif row < self.rows:
                assert column < self.columns, "a line is too long"
                cells[row][column] = shown[at]
                column += 1
            at += 1
        return ["".join(line).rstrip() for line in cells]
