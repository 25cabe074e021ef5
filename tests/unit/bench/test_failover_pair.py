"""What is kept of one failover, with the pair itself left out."""

from __future__ import annotations

import io
import json
import subprocess

import pytest
from bench import failover_pair
from bench.failover_figures import OURS, STOCK
from bench.failover_pair import Failovers, Scene
from pair import clock
from pair.beacon import Listener, Seen
from pair.hosts import CommandFailed
from pair.load import Load
from proof.history import Recorder

KILLED = 1000.0
THEN = clock.Difference(5e8, 0.002)


@pytest.fixture
def stage(tmp_path):
    """The wire and the client's history after a failover."""
    with subprocess.Popen(["true"], text=True) as ended:
        wire = Listener(ended)
        client = Load(ended, tmp_path / "history.jsonl", "10.77.0.100:6379")
    wire.frames += [Seen(990.0, "ipv4", 3), Seen(1017.0, "ethertype-0x8035", None), Seen(1017.9, "arp", 177)]
    text = io.StringIO()
    recorder = Recorder(text)
    recorder.write("start", at=900.0, run="r", guest="g", client="c", counters=4)
    recorder.write("sent", at=901.0, batch=1, ops=["c0", "c1", "j1"])
    for index, (op, moment) in enumerate((("c0", 999.8), ("c1", 1000.01), ("j1", 1025.5))):
        recorder.write("ack", at=moment, batch=1, index=index, op=op, value=1)
    client.history.write_text(text.getvalue() + '{"event":"sent","mono"')  # the client is at work
    return Scene(client, wire)


def test_a_reply_that_was_on_its_way_is_of_the_old_host(stage):
    assert stage.reply(KILLED) == {"last": 1000.01, "first": 1025.5}
    assert stage.reply(1030.0) == {"last": 1025.5, "first": None}


def test_frames_from_the_death_on_are_kept(stage, monkeypatch):
    monkeypatch.setattr(failover_pair.clock, "difference", lambda host: clock.Difference(5e8 + 0.01, 0.003))
    raw = json.loads(json.dumps(stage.answered(KILLED, THEN)))
    assert raw["frames"] == [[1017.0, "ethertype-0x8035", None], [1017.9, "arp", 177]]
    assert raw["clock"] == [{"ahead": 5e8, "doubt": 0.002}, {"ahead": 5e8 + 0.01, "doubt": 0.003}]


@pytest.mark.parametrize("kind", [OURS, STOCK])
def test_a_failover_that_does_not_come_is_noted_with_the_logs_and_the_lab_cleared(kind, tmp_path, monkeypatch):
    done = []

    def fail(*_, **__):
        raise CommandFailed("alpha is gone")

    for name in ("whole", "collect", "forget"):
        monkeypatch.setattr(failover_pair, name, lambda *words, name=name: done.append((name, *words)))
    monkeypatch.setattr(failover_pair, "powered", lambda host: host == "beta")
    monkeypatch.setattr(failover_pair, "on", fail)
    monkeypatch.setattr(failover_pair.agent, "answers", lambda host: True)
    monkeypatch.setattr(failover_pair.agent, "probe_reasons", lambda *hosts: {})
    monkeypatch.setattr(failover_pair.agent, "ask", fail)
    raw = Failovers(tmp_path, lambda text: None).measure(kind, 2)
    assert (raw["round"], raw["kind"], raw["failed"]) == (2, kind, "alpha is gone")
    assert done == [("whole",), ("collect", tmp_path / f"failed-02-{kind}"), ("forget", "beta")]
