"""A /proc of files: what a test says the kernel counts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


class FakeProc:
    """Threads of this process, other processes, and this process itself, below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.this(0.0, 0)

    def thread(self, number: int, seconds: float, *, started: int = 100, children: float = 0.0) -> None:
        """One of this process. seconds: processor time. children: what the kernel shows in it of the whole process's."""
        _write(self.root / f"self/task/{number}/stat", _stat(number, "remus-agent", started, seconds, children))

    def process(
        self,
        number: int,
        seconds: float,
        *,
        kib: int = 0,
        started: int = 100,
        waited: float = 0.0,
        children: Iterable[int] = (),
        name: str = "python3",
    ) -> None:
        """kib: its PSS. waited: processor time of children that are gone. children: those that are there."""
        folder = self.root / str(number)
        _write(folder / "stat", _stat(number, name, started, seconds, waited))
        _write(folder / "smaps_rollup", f"00400000-7fff0000 ---p 00000000 00:00 0 [rollup]\nRss: 1 kB\nPss: {kib} kB\n")
        _write(folder / f"task/{number}/children", "".join(f"{child} " for child in children))

    def this(self, seconds: float, pages: int) -> None:
        """This process. pages: of memory."""
        _write(self.root / "self/stat", _stat(1, "remus-agent", 1, seconds, 0.0))
        _write(self.root / "self/statm", f"{pages * 3} {pages} 10 1 0 50 0\n")

    def ends(self, number: int) -> None:
        """A process, or a thread."""
        for folder in (self.root / str(number), self.root / f"self/task/{number}"):
            shutil.rmtree(folder, ignore_errors=True)


def _stat(number: int, name: str, started: int, seconds: float, waited: float) -> str:
    """Half of the time in the kernel."""
    own, gone = round(seconds * TICKS), round(waited * TICKS)
    before = "S 1 1 1 0 -1 4194560 1 2 3 4"
    times = f"{own - own // 2} {own // 2} {gone - gone // 2} {gone // 2}"
    return f"{number} ({name}) {before} {times} 20 0 1 0 {started} 1 2 3\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
