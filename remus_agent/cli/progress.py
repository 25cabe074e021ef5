"""Progress of a long request, on stderr: one line that is rewritten on a terminal, few lines elsewhere."""

from __future__ import annotations

import contextlib
from typing import Final, TextIO

from remus_agent.cli.render import duration, text
from remus_agent.protocol.control import Progress

_EVERY: Final = 5.0
"""Seconds between lines of the same phase where lines cannot be rewritten."""


def line(progress: Progress) -> str:
    """`[3.2s] seeding 45% (14745/32768 pages) message`."""
    parts = [f"[{duration(progress.elapsed)}]", text(progress.phase)]
    if progress.total > 0:
        done = min(max(progress.done, 0), progress.total)
        parts.append(f"{100 * done // progress.total}%")
        parts.append(f"({progress.done}/{progress.total}{' ' + text(progress.unit) if progress.unit else ''})")
    elif progress.done:
        parts.append(f"{progress.done}{' ' + text(progress.unit) if progress.unit else ''}")
    if progress.message:
        parts.append(text(progress.message))
    return " ".join(parts)


class ProgressLines:
    """Writes progress to a stream. Call `end` before anything else is written there. Where nobody reads it any more it is left
    out: what it is about goes on, and how that ends is what counts."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rewrite = stream.isatty()
        self._phase: tuple[str, str] | None = None
        self._last = 0.0
        self._open = False

    def __call__(self, progress: Progress) -> None:
        """Show it."""
        with contextlib.suppress(OSError):
            self._show(progress)

    def end(self) -> None:
        """Leave the line that is rewritten."""
        if self._open:
            self._open = False
            with contextlib.suppress(OSError):
                self._stream.write("\n")
                self._stream.flush()

    def _show(self, progress: Progress) -> None:
        phase = (progress.phase, progress.message)
        if self._rewrite:
            if self._open and self._phase is not None and self._phase[0] != progress.phase:
                self._stream.write("\n")
            self._stream.write(f"\r\x1b[K{line(progress)}")
            self._open = True
        elif phase != self._phase or progress.elapsed - self._last >= _EVERY:
            self._stream.write(line(progress) + "\n")
            self._last = progress.elapsed
        self._phase = phase
        self._stream.flush()
