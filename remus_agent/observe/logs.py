"""Log lines on stderr, with the priorities that journald reads from it (`<4>text`, sd-daemon(3))."""

from __future__ import annotations

import logging
import sys
from typing import Final, TextIO

_PRIORITIES: Final = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)
_DEBUG_PRIORITY: Final = 7


class PriorityFormatter(logging.Formatter):
    """Puts the priority before each line, also each line of a traceback."""

    def __init__(self, *, prefixes: bool) -> None:
        super().__init__("%(name)s: %(message)s")
        self._prefixes = prefixes

    def format(self, record: logging.LogRecord) -> str:
        """One or more lines."""
        text = super().format(record)
        if not self._prefixes:
            return f"{record.levelname.lower()}: {text}"
        prefix = f"<{_priority(record.levelno)}>"
        return "\n".join(prefix + line for line in text.splitlines() or [""])


def _priority(level: int) -> int:
    return next((priority for limit, priority in _PRIORITIES if level >= limit), _DEBUG_PRIORITY)


def setup(level: int = logging.INFO, stream: TextIO | None = None, prefixes: bool | None = None) -> None:
    """Send all log lines from this level on to stream (stderr). prefixes: None puts them unless it is a
    terminal."""
    target = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(target)
    handler.setFormatter(PriorityFormatter(prefixes=not target.isatty() if prefixes is None else prefixes))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
