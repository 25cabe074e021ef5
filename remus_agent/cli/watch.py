"""`remusctl watch`: all guests of this host, again and again: what they do now, and how fast.

On a terminal it repaints one page, which has room in 80 columns and shows more in WIDE ones; elsewhere it prints a line for each
guest at each look, with -o json an object, with -o yaml an item of one long list, until it is interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from remus_agent.cli.client import Client
from remus_agent.cli.output import entry
from remus_agent.cli.progress import ProgressLines
from remus_agent.cli.render import duration, size, text
from remus_agent.cli.screen import Line, Screen, Span
from remus_agent.errors import ConfigError, RemusError

_BAR: Final = 24
_DIM: Final = 2
_HEAD: Final = 7
_COLOURS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("protected", "ready", "active"), 32),
    **dict.fromkeys(
        ("connecting", "seeding", "receiving", "switching", "handed-over", "stopping", "activating", "starting"), 33
    ),
    **dict.fromkeys(
        ("silent", "solo", "in-doubt", "standing-down", "stood-down", "failed", "paused", "orphaned", "stale"), 31
    ),
}
"""Of states: green, yellow, red. The word is always there too."""
_WIDTHS: Final = (
    *(("GUEST", 12), ("STATE", 13), ("EPOCH", 8), ("/S", 5), ("PAUSE", 7), ("PAGES", 7)),
    *(("SENT", 6), ("HELD", 6), ("ACK", 6)),
)
"""Together 78 columns. Names are cut to it, figures never."""
_COST_WIDTHS: Final = (("CPU", 6), ("MEM", 6))
"""What a protection costs this host: of one processor, and memory."""
WIDE: Final = 92
"""Columns of a terminal that has room for these, too."""
_TIMEOUT: Final = 10.0
_UP: Final = (b"k", b"\x1b[A", b"\x1bOA")
_DOWN: Final = (b"j", b"\x1b[B", b"\x1bOB")


def watch(client: Client, options: argparse.Namespace, _: ProgressLines) -> int:
    """Until q, Ctrl-C or a signal."""
    if options.output != "table" or options.once or not sys.stdout.isatty():
        return _print(client, options)
    if os.environ.get("TERM", "dumb") == "dumb":
        raise ConfigError(
            "this terminal cannot be painted (TERM is dumb or not set)", hint="set TERM, or take: remusctl watch | cat"
        )
    keys = sys.stdin.fileno() if sys.stdin.isatty() else None
    with Screen(sys.stdout.fileno(), keys, colours=not os.environ.get("NO_COLOR")) as screen:
        _paint(client, screen, options.interval)
    return 0


@dataclass
class Rates:
    """Epochs a second of each guest, and what part of one processor its protection takes, from two looks at it. Times in seconds
    of one clock."""

    _last: dict[str, tuple[float, int, object]] = field(default_factory=dict)
    _rates: dict[str, float | None] = field(default_factory=dict)
    _used: dict[str, tuple[float, float]] = field(default_factory=dict)
    _busy: dict[str, float | None] = field(default_factory=dict)

    def take(self, guests: Sequence[Mapping[str, Any]], now: float) -> None:
        """A look at all of them."""
        seen: dict[str, tuple[float, int, object]] = {}
        for one in guests:
            name, epoch, session = str(one.get("domain")), int(one.get("epoch") or 0), one.get("session")
            seen[name] = (now, epoch, session)
            before = self._last.get(name)
            self._rates[name] = None
            if before is not None and session is not None and before[2] == session and now > before[0]:
                self._rates[name] = (epoch - before[1]) / (now - before[0])
        self._last = seen
        self._take_costs(guests, now)

    def _take_costs(self, guests: Sequence[Mapping[str, Any]], now: float) -> None:
        used = {str(one.get("domain")): (now, one["cost"]["cpu_seconds"]) for one in guests if one.get("cost")}
        self._busy = {}
        for name, (at, seconds) in used.items():
            before = self._used.get(name)
            if before is not None and at > before[0] and seconds >= before[1]:  # less: another agent has begun to count
                self._busy[name] = (seconds - before[1]) / (at - before[0])
        self._used = used

    def of(self, guest: Mapping[str, Any]) -> float | None:
        """Of one guest; None: not known yet."""
        return self._rates.get(str(guest.get("domain")))

    def busy(self, guest: Mapping[str, Any]) -> float | None:
        """Processors that its protection takes of this host; None: not known yet."""
        return self._busy.get(str(guest.get("domain")))


def _paint(client: Client, screen: Screen, interval: float) -> None:
    guests: list[dict[str, Any]] = []
    rates, host, problem, first = Rates(), "", "", 0
    due = time.monotonic()
    while True:
        now = time.monotonic()
        if now >= due:
            due = max(due + interval, now)
            try:
                host = host or str(client.call("agent", timeout=_TIMEOUT).get("host") or "")
                guests = client.call("list", timeout=_TIMEOUT).get("domains") or []
                rates.take(guests, time.monotonic())
                problem = ""
            except RemusError as error:
                problem = error.message
        columns, rows = screen.size
        first = max(0, min(first, len(guests) - 1))
        screen.paint(page(host, guests, rates, problem, first=first, columns=columns, rows=rows))
        pressed = screen.wait(due - time.monotonic())
        if pressed[:1] in (b"q", b"Q"):
            return
        first += (pressed in _DOWN) - (pressed in _UP)


def page(
    host: str,
    guests: Sequence[Mapping[str, Any]],
    rates: Rates,
    problem: str,
    *,
    first: int = 0,
    columns: int = 80,
    rows: int = 24,
) -> list[Line]:
    """What is painted. problem: why the agent gave no answer; guests are those of its last one then. first: guest at the top."""
    clock = time.strftime("%H:%M:%S")
    title = f"remusctl watch {text(host)}" + (f"  {len(guests)} guests" if len(guests) != 1 else "  1 guest")
    lines: list[Line] = [
        [Span(f"{title:<{max(columns - len(clock), 0)}.{max(columns - len(clock) - 1, 0)}}{clock}", 1)]
    ]
    if problem:
        lines.append([Span(f"NO ANSWER, what follows is old: {text(problem)}", 31)])
    wide = columns >= WIDE
    lines.append([Span(_row([name for name, _ in _columns(wide=wide)]).ljust(columns), _HEAD)])
    foot: Line = [Span("q ends; up and down, k and j move" if first or len(guests) > 1 else "q ends", _DIM)]
    room = rows - len(lines) - 1
    for at, guest in enumerate(guests[first:], first):
        shown = _guest(guest, rates, wide=wide)
        left = len(guests) - at
        if len(shown) > room - (left > 1):
            if room > 0:
                lines.append([Span(f"and {left} more", _DIM)])
            break
        lines += shown
        room -= len(shown)
    if not guests and not problem:
        lines.append([Span("No guest is known to the agent.")])
    return [*lines, foot]


def _columns(*, wide: bool) -> tuple[tuple[str, int], ...]:
    return (*_WIDTHS, *_COST_WIDTHS) if wide else _WIDTHS


def _guest(one: Mapping[str, Any], rates: Rates, *, wide: bool) -> list[Line]:
    state = text(one.get("state"))
    cells = _cells(one, rates, wide=wide)
    row = _row(cells)
    start = _WIDTHS[0][1] + 1
    lines: list[Line] = [
        [
            Span(row[:start]),
            Span(row[start : start + len(state)], _COLOURS.get(state, 0)),
            Span(row[start + len(state) :]),
        ]
    ]
    for what, done, total, rest in _works(one):
        lines.append([Span(f"  {what:<12} {bar(done, total)} {rest}")])
    if one.get("reason"):
        lines.append([Span(f"  {text(one['reason'])}", 31 if _COLOURS.get(state) == 31 else _DIM)])
    return lines


def _cells(one: Mapping[str, Any], rates: Rates, *, wide: bool) -> list[str]:
    rate, ack = rates.of(one), one.get("last_ack_age")
    primary = one.get("role") == "primary"
    cells = [
        text(one.get("domain")),
        text(one.get("state")),
        text(one.get("epoch")) if one.get("role") != "none" else "-",
        "-" if rate is None else f"{rate:.1f}",
        _pause(one.get("down_ms_last") or 0.0) if primary else "-",
        text(one.get("pages_last")) if primary else "-",
        _short(one.get("bytes_last")) if primary else "-",
        _short(one.get("held_bytes")) if primary else "-",
        "-" if ack is None else duration(ack),
    ]
    return cells + _costs(one, rates) if wide else cells


def _costs(one: Mapping[str, Any], rates: Rates) -> list[str]:
    busy, cost = rates.busy(one), one.get("cost")
    return [
        "-" if busy is None else f"{100 * busy:.1f}%",
        _short(cost.get("memory_bytes")) if cost else "-",
    ]


def _short(count: int | None) -> str:
    """Bytes in at most five characters: `4.8M`, `130M`, `1023K`."""
    number, unit = size(count or 0).split()
    return number if unit == "B" else f"{float(number):.{1 if float(number) < 10 else 0}f}{unit[0]}"


def _pause(milliseconds: float) -> str:
    return f"{milliseconds:.1f}ms" if milliseconds < 1000 else duration(milliseconds / 1000)


def _row(cells: Sequence[str]) -> str:
    """Names and states to the left, figures to the right."""
    widths = _columns(wide=len(cells) > len(_WIDTHS))
    left = [f"{cell:<{width}.{width}}" for cell, (_, width) in zip(cells[:2], widths[:2], strict=True)]
    right = [f"{cell:>{width}}" for cell, (_, width) in zip(cells[2:], widths[2:], strict=True)]
    return " ".join([*left, *right])


def _works(one: Mapping[str, Any]) -> list[tuple[str, int, int, str]]:
    """What is being copied: a name, how much of how much, and what else is known of it."""
    seeding = one.get("seeding")
    if seeding and seeding.get("total"):
        unit = seeding.get("unit") or "pages"
        rate = seeding.get("rate") or 0
        speed = f"{size(rate)}/s" if unit == "bytes" else f"{rate:.0f} {text(unit)}/s"
        left = seeding.get("left")
        return [
            (
                "disks" if unit == "bytes" else "memory",
                seeding["done"],
                seeding["total"],
                f"{_share(seeding)} {speed}" + (f", {duration(left)} left" if left is not None else ""),
            )
        ]
    return [
        (
            f"disk {text(disk.get('vdev'))}",
            disk["done"],
            disk["total"],
            f"{_share(disk)} {size(disk.get('sent') or 0)} sent",
        )
        for disk in one.get("disks") or ()
        if disk.get("mode") == "copying" and disk.get("total")
    ]


def _share(work: Mapping[str, Any]) -> str:
    return f"{100 * min(work['done'], work['total']) // work['total']:3}%"


def bar(done: int, total: int, width: int = _BAR) -> str:
    """`[######..................]`, full only when all is done."""
    full = width * min(max(done, 0), total) // total
    return f"[{'#' * full}{'.' * (width - full)}]"


def _print(client: Client, options: argparse.Namespace) -> int:
    """For logs and programs: an error of the agent ends it."""
    rates = Rates()
    while True:
        guests = client.call("list", timeout=_TIMEOUT).get("domains") or []
        rates.take(guests, time.monotonic())
        at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        for one in guests:
            if options.output != "table":
                found = {"time": at, "epochs_per_second": rates.of(one), "processors": rates.busy(one), **one}
                print(entry(found, options.output))
            else:
                works = "".join(f"  {what} {rest.strip()}" for what, _, _, rest in _works(one))
                print(f"{at} {_row(_cells(one, rates, wide=True)).rstrip()}{works}")
        sys.stdout.flush()
        if options.once:
            return 0
        time.sleep(options.interval)
