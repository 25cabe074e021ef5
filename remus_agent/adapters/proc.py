"""What the kernel counts of threads and processes (proc(5)): processor time, memory, who started whom."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
_UTIME, _STIME, _CUTIME, _CSTIME, _STARTED = 11, 12, 13, 14, 19
"""Places behind the name in `stat`, whose third field is the first one here."""


@dataclass(frozen=True, slots=True)
class Times:
    """started: tells apart two that had the same number, one after the other. own: processor seconds. children: those of its
    children that have ended and were waited for, and theirs."""

    started: int
    own: float
    children: float = 0.0


class Proc:
    """What is below /proc. Of what has ended, everything here says None or nothing. Raises OSError where something cannot be read
    for another reason, ValueError where it is not what proc(5) says."""

    def __init__(self, root: Path = Path("/proc")) -> None:
        self._root = root

    def thread(self, number: int) -> Times | None:
        """Of a thread of this process."""
        return self._times(self._root / "self/task" / str(number) / "stat", children=False)

    def process(self, number: int) -> Times | None:
        """Of all threads of a process, those included that have ended."""
        return self._times(self._root / str(number) / "stat", children=True)

    def this(self) -> Times | None:
        """Of this process."""
        return self._times(self._root / "self/stat", children=True)

    def started_by(self, number: int) -> list[int]:
        """The children of a process's first thread that were not waited for yet. Our taps start none, and xl has one thread."""
        found = _read(self._root / str(number) / "task" / str(number) / "children")
        return [] if found is None else [int(child) for child in found.split()]

    def share(self, number: int) -> int:
        """Bytes of memory that a process has for itself, and its part of those that it shares with others (PSS)."""
        path = self._root / str(number) / "smaps_rollup"
        found = _read(path)
        if not found:
            return 0  # it has ended, or is about to: its memory is gone
        for line in found.splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        raise ValueError(f"{path} has no Pss")

    def resident(self) -> int:
        """Bytes of memory of this process, everything that it shares with others included."""
        found = _read(self._root / "self/statm")
        return 0 if found is None else int(found.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def _times(self, path: Path, *, children: bool) -> Times | None:
        found = _read(path)
        if not found:
            return None
        fields = found.rpartition(")")[2].split()  # before it stands the name, which may be anything
        if len(fields) <= _STARTED:
            raise ValueError(f"{path} has {len(fields)} fields behind the name")
        # Of a thread the kernel shows the children of the whole process here.
        waited = int(fields[_CUTIME]) + int(fields[_CSTIME]) if children else 0
        return Times(int(fields[_STARTED]), (int(fields[_UTIME]) + int(fields[_STIME])) * _TICK, waited * _TICK)


def _read(path: Path) -> str | None:
    """None: what it is about has ended."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
