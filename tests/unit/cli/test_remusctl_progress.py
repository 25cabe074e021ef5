"""Progress, durations and sizes as `remusctl` shows them."""

from __future__ import annotations

import io

import pytest
from terminal import TerminalText

from remus_agent.cli import progress, render
from remus_agent.protocol.control import Progress


def test_progress_on_a_terminal_is_one_line_a_phase() -> None:
    stream = TerminalText()
    lines = progress.ProgressLines(stream)
    lines(Progress(phase="connecting", elapsed=0.1))
    lines(Progress(phase="seeding", done=1, total=2, elapsed=1))
    lines(Progress(phase="seeding", done=2, total=2, elapsed=70))
    lines.end()
    lines.end()
    assert stream.getvalue() == (
        "\r\x1b[K[0.1s] connecting\n\r\x1b[K[1.0s] seeding 50% (1/2)\r\x1b[K[1m10s] seeding 100% (2/2)\n"
    )


def test_progress_elsewhere_is_a_line_now_and_then() -> None:
    stream = io.StringIO()
    lines = progress.ProgressLines(stream)
    for second in range(12):
        lines(Progress(phase="seeding", done=second, total=12, elapsed=float(second)))
    assert len(stream.getvalue().splitlines()) == 3


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.2s"), (59.9, "59s"), (185, "3m05s"), (7800, "2h10m"), (356400, "4d03h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")])
def test_sizes(count: int, text: str) -> None:
    assert render.size(count) == text
