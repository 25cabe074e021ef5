"""What a measurement of the pair rests on, with processes of this machine in the place of hosts."""

import signal
import subprocess
import time

import pytest
from pair import clock, hosts, stock_remus
from pair.beacon import Listener
from pair.hosts import CommandFailed, power_loss


def test_the_difference_is_between_time_of_day_and_monotonic_time(monkeypatch):
    monkeypatch.setattr(clock, "over_ssh", lambda host, command: ["sh", "-c", command])
    found = clock.difference("beta")
    assert 0 < found.doubt < 1
    assert found.ahead == pytest.approx(time.time() - time.monotonic(), abs=found.doubt + 0.1)


@pytest.mark.parametrize("host", ["exit 1", "read line; echo soon; read line", "exec sleep 600"])
def test_a_host_that_does_not_say_its_time_is_told(monkeypatch, host):
    monkeypatch.setattr(clock, "over_ssh", lambda _, command: ["sh", "-c", host])
    monkeypatch.setattr(clock, "PATIENCE", 0.5)
    with pytest.raises(CommandFailed, match="beta does not say what time it is"):
        clock.difference("beta")


def test_a_power_loss_is_dated_before_the_machine_is_gone(monkeypatch):
    told = []
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as machine:
        monkeypatch.setattr(hosts, "lab_status", lambda: {"hosts": {"alpha": {"pid": machine.pid}}})
        monkeypatch.setattr(hosts, "labctl", lambda *words: told.append((words, machine.wait(30))))
        before = time.monotonic()
        moment = power_loss("alpha")
    assert before <= moment < time.monotonic()
    assert told == [(("kill", "alpha"), -signal.SIGKILL)]
    monkeypatch.setattr(hosts, "lab_status", lambda: {"hosts": {"alpha": {"pid": None}}})
    with pytest.raises(CommandFailed, match="it is off"):
        power_loss("alpha")


def test_questions_reach_the_beacon_in_its_words():
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        listener = Listener(process)
        listener.emit(0)
        listener.ask(177)
        said, _ = process.communicate(timeout=30)
    assert said == "rounds 0\nsend 177\n"


def test_checkpoints_of_stock_are_counted_until_it_has_ended(monkeypatch, tmp_path):
    def here(host, command):
        assert host == "alpha"
        return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout

    monkeypatch.setattr(stock_remus, "on", here)
    log = tmp_path / "xl.log"
    log.write_text(
        "xc: progress: Checkpointed save: 45/450   10%\nxc: Checkpointed save: 450/450  100%\nlibxl: debug\n"
    )
    stock_remus.wait_for_checkpoints(str(tmp_path), 2, 0)
    (tmp_path / "status").write_text("1\n")
    with pytest.raises(CommandFailed, match=r"(?s)ended with status 1 after 2 checkpoints.*libxl: debug"):
        stock_remus.wait_for_checkpoints(str(tmp_path), 3, 0)
