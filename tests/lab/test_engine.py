"""Checkpoints of a real guest, applied and activated by stock xl; and a guest whose agent is killed while
it is down.

Primary and backup are one host here (the probe gives the copy another UUID), so that a test needs no
replication network."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from lab_hosts import PROJECT, CommandFailed, Guest, Host

pytestmark = [pytest.mark.lab, pytest.mark.timeout(3600)]

PYTHON = "/opt/remus/current/bin/python"
PORT = 7907
KEYS = 200
SLOW = 900.0


@dataclass(frozen=True)
class Engine:
    """The probe on a host, with a supervisor of its own in `folder`."""

    host: Host
    folder: str
    command: str

    def start(self, arguments: str, log: str, environment: str = "") -> int:
        """Start it in the background. Returns its process id."""
        line = f"{environment} setsid {self.command} {arguments} >{self.folder}/{log} 2>&1 </dev/null & echo $!"
        return int(self.host.run(line).split()[-1])

    def wait_for(self, log: str, text: str) -> None:
        self.host.run(
            f"for i in $(seq 600); do grep -q '{text}' {self.folder}/{log} && exit; sleep 0.5; done; "
            f"cat {self.folder}/{log}; exit 1",
            timeout=SLOW,
        )

    def measured(self, log: str) -> dict[str, Any]:
        lines = self.host.run(f"cat {self.folder}/{log}").splitlines()
        return {key: value for line in lines if line.startswith("{") for key, value in json.loads(line).items()}


@pytest.fixture(scope="module")
def engine(host: Host, package: str) -> Iterator[Engine]:
    try:
        host.run(f"{PYTHON} -c 'import numpy, msgspec'")
    except CommandFailed:
        pytest.skip(f"{PYTHON} on {host.name} has no numpy: install the agent first (make protect)")
    folder = f"/run/remus-test-{uuid.uuid4().hex[:8]}"
    host.put(folder, {"probe.py": (PROJECT / "tools" / "lab_engine_probe.py").read_bytes()})
    prefix = f"env PYTHONPATH={package} {PYTHON}"
    guard = int(
        host.run(
            f"setsid {prefix} -m remus_agent.supervisor --run {folder} >{folder}/guard.log 2>&1 </dev/null & echo $!"
        ).split()[-1]
    )
    made = Engine(host, folder, f"{prefix} {folder}/probe.py --supervisor {folder}/supervisor.sock")
    host.run(f"for i in $(seq 100); do [ -S {folder}/supervisor.sock ] && exit; sleep 0.2; done; exit 1")
    yield made
    host.run(f"kill {guard}; rm -rf {folder}")


def redis(guest: Guest, *commands: str) -> list[str]:
    """The answers to inline commands."""
    text = "".join(f"{command}\r\n" for command in (*commands, "QUIT"))
    return guest.host.run(f"nc -w 60 {guest.address} 6379", stdin=text.encode(), timeout=SLOW).split("\r\n")


def answers(guest: Guest) -> None:
    """Wait until its redis answers."""
    guest.host.run(
        f"for i in $(seq 300); do printf 'PING\\r\\nQUIT\\r\\n' | nc -w 3 {guest.address} 6379 | grep -q PONG && exit; "
        "sleep 0.5; done; exit 1",
        timeout=SLOW,
    )


@pytest.mark.long
def test_a_guest_killed_by_its_agents_death_is_resumed(engine: Engine, probe_guest: Guest) -> None:
    answers(probe_guest)
    serve = engine.start(f"serve 127.0.0.1:{PORT}", "serve1.log")
    engine.wait_for("serve1.log", "facts")
    agent = engine.start(
        f"run {probe_guest.name} 127.0.0.1:{PORT} --epochs 3 --keep", "run1.log", "REMUS_SEEDED_FAULT=pause-at:copied"
    )
    engine.wait_for("run1.log", "pause-at:copied")
    with pytest.raises(CommandFailed):  # it is down: nothing answers
        engine.host.run(f"printf 'PING\\r\\n' | nc -w 3 {probe_guest.address} 6379 | grep -q PONG")
    engine.host.run(f"kill -KILL {agent}")
    engine.wait_for("guard.log", "resumed; it was left suspended")
    answers(probe_guest)
    engine.host.run(f"while kill -0 {serve} 2>/dev/null; do sleep 0.5; done", timeout=SLOW)
    with pytest.raises(CommandFailed):  # the copy went with its stream
        engine.host.run("xl domid probe--incoming")


@pytest.mark.long
def test_a_copy_goes_on_with_the_data_of_the_last_checkpoint(engine: Engine, probe_guest: Guest) -> None:
    answers(probe_guest)
    assert redis(probe_guest, *(f"SET key{n} value{n}" for n in range(KEYS))).count("+OK") == KEYS + 1
    engine.start(f"serve 127.0.0.1:{PORT}", "serve2.log")
    engine.wait_for("serve2.log", "facts")
    engine.start(f"run {probe_guest.name} 127.0.0.1:{PORT} --epochs 20", "run2.log")
    engine.wait_for("run2.log", "activation")
    measured = engine.measured("run2.log")
    assert measured["epochs"] == 20
    assert int(engine.host.run(f"xl domid {probe_guest.name}")) != probe_guest.domid
    answers(probe_guest)
    found = redis(probe_guest, *(f"GET key{n}" for n in range(KEYS)))
    assert [line for line in found if line.startswith("value")] == [f"value{n}" for n in range(KEYS)]
