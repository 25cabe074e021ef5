"""Seeded faults: asked for by exact names only, never active by accident."""

import os
import signal
import subprocess
import sys

import pytest

from remus_agent.errors import ConfigError
from remus_agent.faults import VARIABLE, FaultName, Phase, active, pause_at

PROGRAM = """
import sys
from remus_agent.faults import pause_at
for phase in sys.argv[1:]:
    pause_at(phase)
    print(phase, flush=True)
"""


def test_nothing_is_active_by_itself(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not any(active(name) for name in FaultName)
    for phase in Phase:
        pause_at(phase)


def test_a_fault_is_active_when_it_is_named(monkeypatch, caplog):
    monkeypatch.setenv(VARIABLE, "hold-ipv4-only, pause-at:sending:7")
    assert [name for name in FaultName if active(name)] == [FaultName.HOLD_IPV4_ONLY]
    assert "SEEDED FAULT ACTIVE" in caplog.text


@pytest.mark.parametrize(
    "text", ["hold-ipv4", "pause-at", "pause-at:", "pause-at:lunch", "pause-at:sending:0", "pause-at:sending:x"]
)
def test_a_misspelt_fault_is_an_error(monkeypatch, text):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ConfigError, match="unknown fault"):
        active(FaultName.HOLD_IPV4_ONLY)


@pytest.mark.parametrize(
    ("fault", "printed"),
    [
        ("pause-at:sending", ["resumed"]),
        ("pause-at:sending:2", ["resumed", "sending", "acked"]),
        ("ack-wait-removed,pause-at:acked", ["resumed", "sending"]),
    ],
)
def test_a_process_stops_where_it_is_told_to_and_only_once(fault, printed):
    phases = ["resumed", "sending", "acked", "sending", "acked"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *phases],
        env={**os.environ, VARIABLE: fault},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        stopped = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert stopped.si_status == signal.SIGSTOP
        before = [process.stdout.readline().strip() for _ in printed]
        process.send_signal(signal.SIGCONT)
        after, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert before == printed
    assert before + after.split() == phases
