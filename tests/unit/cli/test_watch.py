"""`remusctl watch` on a real terminal (a pty), and without one."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from typing import Any

import pytest
import yaml
from fake_agent import STATUS, FakeAgent, fails, gives
from terminal import Terminal

from remus_agent.cli import main as cli
from remus_agent.cli.watch import WIDE, Rates, bar, page
from remus_agent.protocol import control

COMMAND = [sys.executable, "-m", "remus_agent.cli.main"]
SEEDING = STATUS | {
    "domain": "db1",
    "state": "seeding",
    "seeding": {"done": 512, "total": 1024, "unit": "pages", "rate": 64.0, "left": 8.0},
}
SILENT = STATUS | {"domain": "web1", "state": "silent", "reason": "heard nothing from the backup for 30 s"}


class Guests:
    """What the fake agent has; each look finds three epochs more."""

    def __init__(self, agent: FakeAgent, *guests: dict[str, Any]) -> None:
        self.guests = guests
        self.looks = 0
        agent.answers = self.answer

    def answer(self, request: control.Request) -> list[bytes]:
        if request.method == "agent":
            return [control.encode_result(request.id, {"host": "alpha"})]
        self.looks += 1
        found = [one | {"epoch": one["epoch"] + 3 * self.looks} for one in self.guests]
        return [control.encode_result(request.id, {"domains": found})]


def terminal(agent: FakeAgent, *more: str, **sizes: Any) -> Terminal:
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    return Terminal([*COMMAND, "watch", "--interval", "0.2", *more], env | {"REMUS_SOCKET": str(agent.path)}, **sizes)


def test_a_page_on_a_terminal_of_80_by_24_and_q(agent: FakeAgent) -> None:
    Guests(agent, STATUS, SEEDING, SILENT)
    with terminal(agent) as shown:
        lines = shown.until("heard nothing from the backup")
        assert lines[0].startswith("remusctl watch alpha  3 guests")
        assert lines[1].split() == ["GUEST", "STATE", "EPOCH", "/S", "PAUSE", "PAGES", "SENT", "HELD", "ACK"]
        assert lines[2].split()[:2] == ["redis1", "protected"]
        assert lines[2].split()[4:] == ["2.5ms", "120", "480K", "64K", "0.2s"]
        assert lines[4] == "  memory       [############............]  50% 64 pages/s, 8.0s left"
        assert lines[7].startswith("q ends")
        assert shown.modes[3] != shown.before[3]
        rate = re.compile(r"redis1 +protected +\d+ +[1-9]\d*\.\d ")
        shown.wait_for(lambda: any(map(rate.match, shown.page())), "epochs a second")
        assert "\x1b[31msilent\x1b[0m" in shown.written
        shown.press("q")
        assert shown.ended() == 0
        assert shown.modes == shown.before
        assert shown.written.endswith("\x1b[?25h\x1b[?1049l")


def test_it_follows_the_size_of_the_terminal_and_moves_through_many_guests(agent: FakeAgent) -> None:
    Guests(agent, *(STATUS | {"domain": f"guest{number:02}"} for number in range(40)))
    with terminal(agent, "--interval", "30") as shown:
        lines = shown.until("and 20 more")
        assert [line for line in lines if line.startswith("guest")][-1].split()[0] == "guest19"
        shown.resize(60, 10)
        lines = shown.until("and 34 more")
        assert len(lines[0]) == 60
        shown.press("\x1b[B")
        shown.until("guest06")
        shown.press("k")
        assert shown.until("and 34 more")[2].startswith("guest00")
        shown.resize(200, 50)
        assert "more" not in "\n".join(shown.until("guest39"))
        shown.resize(10, 2)
        shown.until("GUEST")
        shown.press("q")
        assert shown.ended() == 0


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)],
    ids=str,
)
def test_a_signal_leaves_the_terminal_as_it_was(agent: FakeAgent, number: signal.Signals, code: int) -> None:
    Guests(agent, STATUS)
    with terminal(agent) as shown:
        shown.until("redis1")
        shown.process.send_signal(number)
        assert shown.ended() == code
        assert shown.modes == shown.before
        assert "\x1b[?25h\x1b[?1049l" in shown.written
        assert "Traceback" not in shown.written


def test_a_defect_leaves_the_terminal_as_it_was(agent: FakeAgent) -> None:
    agent.answers = gives(host="alpha", domains=5)
    with terminal(agent) as shown:
        assert shown.ended() == 1
        assert shown.modes == shown.before
        assert "this should not happen" in shown.written.rpartition("\x1b[?1049l")[2]


def test_the_shell_gets_its_terminal_between_ctrl_z_and_fg(agent: FakeAgent) -> None:
    Guests(agent, STATUS)
    with terminal(agent) as shown:
        shown.until("redis1")
        shown.process.send_signal(signal.SIGTSTP)
        # In a session of its own nobody could let it go on, so the kernel does not stop it; the terminal was given back all
        # the same, and is taken again.
        shown.until("redis1")
        shown.wait_for(lambda: shown.written.count("\x1b[?1049h") == 2, "the page again")
        left = shown.written.index("\x1b[?25h\x1b[?1049l")
        assert shown.written.index("\x1b[?1049h\x1b[?25l", left) > left
        shown.press("q")
        assert shown.ended() == 0
        assert shown.modes == shown.before


def test_an_agent_that_goes_away_and_comes_back(agent: FakeAgent) -> None:
    guests = Guests(agent, STATUS)
    with terminal(agent) as shown:
        shown.until("redis1")
        agent.answers = fails(code="error", message="not now \x1b[2J")
        assert "redis1" in "\n".join(shown.until("NO ANSWER, what follows is old: not now ?[2J"))
        agent.answers = guests.answer
        shown.wait_for(lambda: "NO ANSWER" not in "\n".join(shown.page()), "an answer")
        shown.press("q")
        assert shown.ended() == 0


def test_a_terminal_without_keys(agent: FakeAgent) -> None:
    Guests(agent, STATUS)
    with terminal(agent, keys=False) as shown:
        shown.until("redis1")
        shown.process.send_signal(signal.SIGTERM)
        assert shown.ended() == 143


def test_without_a_terminal_it_prints_lines(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    Guests(agent, STATUS, SEEDING)
    assert cli.main(["top", "--once"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[1:4] == ["redis1", "protected", "45"]
    assert second.endswith("memory 50% 64 pages/s, 8.0s left")
    assert cli.main(["-o", "json", "watch", "--once"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["domain"], one["epochs_per_second"]) for one in found] == [("redis1", None), ("db1", None)]
    assert cli.main(["-o", "yaml", "watch", "--once"]) == 0
    assert [one["domain"] for one in yaml.safe_load(capsys.readouterr().out)] == ["redis1", "db1"]
    agent.answers = fails(code="refused", message="no")
    assert cli.main(["watch"]) == 3


def test_what_it_refuses(agent: FakeAgent) -> None:
    with pytest.raises(SystemExit):
        cli.main(["watch", "--interval", "0.1"])
    env = dict(os.environ) | {"REMUS_SOCKET": str(agent.path)}
    with Terminal(["env", "TERM=dumb", *COMMAND, "watch"], env) as shown:
        assert shown.ended() == 2
        assert "TERM is dumb" in shown.written


def test_rates_are_those_of_one_session() -> None:
    rates = Rates()
    rates.take([STATUS], 1.0)
    assert rates.of(STATUS) is None
    rates.take([STATUS | {"epoch": 62}], 3.0)
    assert rates.of(STATUS) == 10.0
    rates.take([STATUS | {"epoch": 2, "session": "another"}], 4.0)
    assert rates.of(STATUS) is None


def cost(seconds: float, count: int) -> dict[str, Any]:
    return {"cost": {"cpu_seconds": seconds, "memory_bytes": count, "parts": []}}


def test_a_wide_terminal_shows_what_a_protection_costs() -> None:
    rates = Rates()
    rates.take([STATUS | cost(10.0, 46 << 20)], 1.0)
    dear = STATUS | cost(10.25, 46 << 20)
    rates.take([dear], 3.0)
    lines = ["".join(span.text for span in line) for line in page("alpha", [dear, SILENT], rates, "", columns=WIDE)]
    assert lines[1].split()[-2:] == ["CPU", "MEM"]
    assert lines[2].split()[-2:] == ["12.5%", "46M"]
    assert lines[3].split()[-2:] == ["-", "-"]
    assert {len(line) for line in lines[1:4]} == {WIDE}
    narrow = ["".join(span.text for span in line) for line in page("alpha", [dear], rates, "", columns=WIDE - 1)]
    assert narrow[1].split()[-1] == "ACK"
    assert len(narrow[2]) == 78


def test_a_counter_that_begins_anew_is_no_rate() -> None:
    rates = Rates()
    rates.take([STATUS | cost(10.0, 1)], 1.0)
    rates.take([STATUS | cost(0.5, 1)], 2.0)
    assert rates.busy(STATUS) is None
    rates.take([STATUS], 3.0)
    rates.take([STATUS | cost(0.5, 1)], 4.0)
    assert rates.busy(STATUS) is None
    rates.take([STATUS | cost(1.0, 1)], 5.0)
    assert rates.busy(STATUS) == 0.5


def test_disks_that_are_copied_have_a_bar() -> None:
    disk = {"vdev": "xvda", "mode": "copying", "size": 4096, "done": 1024, "total": 4096, "sent": 1024}
    lines = page("alpha", [STATUS | {"disks": [disk]}], Rates(), "")
    assert "  disk xvda    [######..................]  25% 1.0 KiB sent" in [
        "".join(s.text for s in line) for line in lines
    ]
    seeding = {"done": 1 << 20, "total": 1 << 22, "unit": "bytes", "rate": float(1 << 20), "left": None}
    lines = page("alpha", [STATUS | {"seeding": seeding}], Rates(), "")
    assert any("disks        [######" in line[0].text and "25% 1.0 MiB/s" in line[0].text for line in lines)


@pytest.mark.parametrize(("done", "full"), [(0, 0), (1, 0), (50, 2), (99, 3), (100, 4), (120, 4), (-1, 0)])
def test_a_bar_is_full_only_when_all_is_done(done: int, full: int) -> None:
    assert bar(done, 100, 4) == f"[{'#' * full}{'.' * (4 - full)}]"
