"""Plots as SVG, each in two shapes: a wide one and one for a phone. Colours come from the page's style sheet.

All plots of a page have the same axis of time, with the fault shaded, so that they can be read below each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from drill import figures
from drill.record import Run
from drill.scales import Scale, decades, nice

WIDE, NARROW = 1040, 358
LEFT, RIGHT, TOP = 62, 12, 22
GAP = 3.0
"""Seconds without a value after which nothing is drawn."""
Point = tuple[float, float]

STATES = {
    "protected": "good",
    "ready": "copy",
    "receiving": "copy",
    "seeding": "work",
    "connecting": "work",
    "activating": "work",
    "starting": "work",
    "silent": "held",
    "orphaned": "held",
    "active": "open",
    "solo": "open",
    "unprotected": "open",
    "no agent": "dead",
    "no answer": "away",
}
"""State of an agent to a colour of the style sheet; others are `other`."""


@dataclass(frozen=True)
class Frame:
    """A plot's place: viewBox units."""

    run: Run
    width: int
    height: int
    bottom: int = 24

    @property
    def x(self) -> Scale:
        """Seconds since the beginning."""
        return Scale(0.0, max(0.001, self.run.end - self.run.start), LEFT, self.width - RIGHT)

    @property
    def floor(self) -> float:
        """Where the axis of time is."""
        return self.height - self.bottom

    def shade(self) -> str:
        """The time of the fault."""
        begin, end = figures.bounds(self.run)["during"]
        left, right = self.x(begin - self.run.start), self.x(end - self.run.start)
        width, height = max(1.0, round(right - left, 1)), round(self.floor - TOP, 1)
        return f'<rect class="fault" x="{left}" y="{TOP}" width="{width}" height="{height}"/>'

    def time_axis(self) -> str:
        """Its line, ticks and numbers."""
        most = 10 if self.width > 600 else 4
        parts = [f'<path class="axis" d="M{LEFT} {self.floor}H{self.width - RIGHT}"/>']
        ticks = nice(0.0, self.run.end - self.run.start, most)
        for tick in ticks:
            unit = " s" if tick == ticks[-1] else ""
            anchor = "end" if self.x(tick) > self.width - RIGHT - 14 else "middle"
            parts.append(f'<text x="{self.x(tick)}" y="{self.floor + 16}" text-anchor="{anchor}">{tick:g}{unit}</text>')
        return "".join(parts)

    def lines(self, scale: Scale, ticks: Sequence[float], words: Callable[[float], str]) -> str:
        """Lines across, with what they stand for."""
        parts = []
        for tick in ticks:
            y = scale(tick)
            parts.append(f'<path class="grid" d="M{LEFT} {y}H{self.width - RIGHT}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{escape(words(tick))}</text>')
        return "".join(parts)

    def svg(self, name: str, words: str, *parts: str) -> str:
        """The whole. words: for who does not see it."""
        which = "wide" if self.width > 600 else "narrow"
        return (
            f'<svg class="plot {which}" id="{name}-{which}" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(words)}">{"".join(parts)}</svg>'
        )


def both(make: Callable[[int], str]) -> str:
    """A plot in both shapes; the style sheet shows one."""
    return make(WIDE) + make(NARROW)


def dots(points: Sequence[Point], css: str) -> str:
    """One path of round dots. Of many in one place one is drawn."""
    if not points:
        return ""
    places = sorted({(round(x * 2) / 2, round(y)) for x, y in points})
    return f'<path class="{css}" d="{"".join(f"M{x:g} {y:g}h0" for x, y in places)}"/>'


def latency(run: Run, width: int) -> str:
    """Every question at the moment it was asked; below, epochs, and each agent's state."""
    rows = len(run.hosts)
    frame = Frame(run, width, 250 + 24 + 26 * rows, 24 + 24 + 26 * rows)
    answered = [(one.sent - run.start, one.seconds or 0.0) for one in run.answered]
    values = [max(seconds, 1e-5) for _, seconds in answered]
    low = 10 ** _floor(min(values, default=1e-3))
    high = max(low * 10, 10 ** _ceiling(max(values, default=1.0)))
    y = Scale(low, high, frame.floor - 6, TOP + 8, logarithmic=True)
    open_ = [one.sent - run.start for one in run.questions if one.answered is None or not one.good]
    parts = [
        frame.shade(),
        frame.lines(y, decades(low, high, 5), lambda tick: figures.seconds(tick).replace(".0", "")),
        dots([(frame.x(at), y(max(seconds, low))) for at, seconds in answered], "dot client"),
        dots([(frame.x(at), float(TOP + 3)) for at in open_], "dot bad"),
        "".join(f'<path class="lost" d="M{frame.x(at - run.start)} {TOP}V{frame.floor}"/>' for at, _ in run.lost),
        frame.time_axis(),
        _names(frame),
        _epochs(frame, frame.floor + 24),
        "".join(_strip(frame, host, frame.floor + 46 + 26 * row) for row, host in enumerate(run.hosts)),
    ]
    return frame.svg("latency", "How long each question of the client took, over time", *parts)


def _floor(value: float) -> int:
    return next(power for power in range(3, -9, -1) if 10.0**power <= value * 1.0000001)


def _ceiling(value: float) -> int:
    return next(power for power in range(-8, 5) if 10.0**power >= value * 0.9999999)


def _names(frame: Frame) -> str:
    """Which part of the drill is which, above the plot."""
    parts = []
    words = {"before": "before", "during": "fault", "after": "after"}
    for name, (begin, end) in figures.bounds(frame.run).items():
        left, right = frame.x(begin - frame.run.start), frame.x(end - frame.run.start)
        if right - left > (44 if name != "during" else 28):
            parts.append(
                f'<text class="phase" x="{round((left + right) / 2, 1)}" y="{TOP - 8}" text-anchor="middle">{words[name]}</text>'
            )
    return "".join(parts)


def _epochs(frame: Frame, y: float) -> str:
    """A line for each epoch, when its guest was stopped."""
    run = frame.run
    places = sorted({round(frame.x(one.at - run.start)) for one in run.epochs if run.start <= one.at <= run.end})
    return (
        f'<text x="{LEFT - 6}" y="{y + 12}" text-anchor="end">epochs</text>'
        f'<path class="epoch" d="{"".join(f"M{x} {y + 2}v12" for x in places)}"/>'
    )


def _strip(frame: Frame, host: str, y: float) -> str:
    """What one agent said of itself, over time."""
    run = frame.run
    looks = run.of(host)
    name = host if len(host) <= 9 else host[:8] + "…"
    parts = [f'<text x="{LEFT - 6}" y="{y + 13}" text-anchor="end">{escape(name)}</text>']
    pieces: list[tuple[float, str]] = []
    for look in looks:
        said = look.state if look.state is not None else "no agent" if look.reached else "no answer"
        if not pieces or pieces[-1][1] != said:
            pieces.append((look.asked - run.start, said))
    ends = [*(at for at, _ in pieces[1:]), run.end - run.start][: len(pieces)]
    for (begin, said), after in zip(pieces, ends, strict=True):
        left, right = frame.x(begin), frame.x(after)
        wide = round(max(1.0, right - left), 1)
        parts.append(
            f'<rect class="state {STATES.get(said, "other")}" x="{left}" y="{y}" width="{wide}" height="18">'
            f"<title>{escape(host)}: {escape(said)}</title></rect>"
        )
        if wide > 7.2 * len(said) + 8:
            parts.append(f'<text class="on" x="{left + 6}" y="{y + 13}">{escape(said)}</text>')
    return "".join(parts)


def series(
    run: Run,
    width: int,
    name: str,
    words: str,
    points: list[Point],
    tell: Callable[[float], str],
    *,
    steps: bool = False,
) -> str:
    """One value over time. points: (seconds since the beginning, value)."""
    frame = Frame(run, width, 150)
    highest = max((value for _, value in points), default=0.0)
    high = highest * 1.08 or 1.0
    y = Scale(0.0, high, frame.floor, TOP - 6)
    ticks = _binary(high, 4) if name in ("bytes", "held") else nice(0.0, high, 4)
    placed = [(frame.x(at), y(value)) for at, value in points if 0 <= at <= run.end - run.start]
    drawn = _steps(placed, frame.x(GAP) - LEFT) if steps else _stems(placed, frame.floor) + dots(placed, "dot epochs")
    return frame.svg(name, words, frame.shade(), frame.lines(y, ticks, tell), drawn, frame.time_axis())


def _binary(high: float, most: int) -> list[float]:
    """Round numbers of bytes."""
    unit = 1.0
    while high / unit >= 1024:
        unit *= 1024
    return [tick * unit for tick in nice(0.0, high / unit, most) if unit > 1 or tick == int(tick)]


def _stems(placed: list[Point], floor: float) -> str:
    tops: dict[int, float] = {}
    for x, y in placed:
        tops[round(x)] = min(y, tops.get(round(x), floor))
    return (
        f'<path class="stem" d="{"".join(f"M{x} {floor:g}V{y:g}" for x, y in sorted(tops.items()))}"/>' if tops else ""
    )


def _steps(placed: list[Point], gap: float) -> str:
    """A line that ends where nothing is known for longer than gap."""
    if not placed:
        return ""
    drawn: list[str] = []
    before = None
    for x, y in placed:
        drawn.append(f"M{x:g} {y:g}" if before is None or x - before > gap else f"H{x:g}V{y:g}")
        before = x
    return f'<path class="line" d="{"".join(drawn)}"/>'
