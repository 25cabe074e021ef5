"""Looks at agents: over ssh against a server of paramiko's, and on this machine."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from drill import folder, reach, watch
from drill.looks import Looks
from drill.reach import Target, Unreachable
from drill_story import plan

EPOCH = {"started": 1.0, "pages": 1, "bytes": 1, "down_ns": 1, "send_ns": 1, "ack_ns": 1}


class Agent:
    """A control socket. epochs: how many there are; each look adds one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.epochs = 3
        self.asked: list[str] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(4)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            # Who asked may be gone before it is answered.
            with contextlib.suppress(ConnectionError), link, link.makefile("rwb") as lines:
                for line in lines:
                    request = json.loads(line)
                    self.asked.append(request["method"])
                    lines.write(json.dumps({"id": request["id"], **self._answer(request)}).encode() + b"\n")
                    lines.flush()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["params"].get("domain") == "other":
            return {"error": {"code": "domain-not-found", "message": "no domain other"}}
        if request["method"] == "status":
            self.epochs += 1
            return {"result": {"role": "primary", "state": "protected", "session": "s", "acked_epoch": self.epochs}}
        if request["method"] == "records":
            return {"result": {"epochs": [{"epoch": number, **EPOCH} for number in range(self.epochs)]}}
        newest = self.epochs
        return {"result": {"events": [{"id": newest, "event": "protected", "detail": {}}]}}

    def close(self) -> None:
        """No new connections."""
        self._listener.close()


class Server(paramiko.ServerInterface):
    """Lets one key in, and runs what it is told on this machine."""

    def __init__(self, key: paramiko.PKey) -> None:
        self._key = key
        self.commands: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        good = username == "operator" and key == self._key
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.commands.append(command.decode())
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command.decode()}"], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0
        )
        self.processes.append(process)
        threading.Thread(target=self._in, args=(channel, process), daemon=True).start()
        threading.Thread(target=self._out, args=(channel, process), daemon=True).start()
        return True

    @staticmethod
    def _in(channel: paramiko.Channel, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it may have been killed
            while data := channel.recv(4096):
                process.stdin.write(data)
            process.stdin.close()

    @staticmethod
    def _out(channel: paramiko.Channel, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        with contextlib.suppress(OSError):  # the client may have gone
            while data := process.stdout.read(4096):
                channel.sendall(data)
            channel.sendall_stderr(process.stderr.read())
        channel.close()


class Host:
    """An ssh server on the loopback device, and what is needed to log in."""

    def __init__(self, tmp_path: Path) -> None:
        self.key = paramiko.ECDSAKey.generate()
        self.key_file = tmp_path / "id"
        self.key.write_private_key_file(str(self.key_file))
        self._host_key = paramiko.ECDSAKey.generate()
        self.server = Server(self.key)
        self.config = tmp_path / "ssh_config"
        self.config.write_text("Host *\n  StrictHostKeyChecking no\n")
        self._transports: list[paramiko.Transport] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(link)
            transport.add_server_key(self._host_key)
            self._transports.append(transport)
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):  # of a client that has gone again
                transport.start_server(server=self.server)

    def target(self, **more: Any) -> Target:
        """As an inventory would say it."""
        said = {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": "operator",
            "ansible_ssh_private_key_file": str(self.key_file),
            "ansible_ssh_common_args": f"-F {self.config}",
        }
        return Target.of("alpha", said | more)

    def cut(self) -> None:
        """Every connection ends, and no new one is taken."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for transport in self._transports:
            transport.close()
        for process in self.server.processes:
            process.kill()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """One that answers."""
    made = Host(tmp_path)
    yield made
    with contextlib.suppress(OSError):
        made.cut()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """One that answers."""
    made = Agent(tmp_path / "a.sock")
    yield made
    made.close()


LOCAL = Target.of("alpha", {"ansible_connection": "local"})


def test_the_same_is_seen_over_ssh_and_here(host: Host, agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    (tmp_path / "marks" / "begun").touch()
    (tmp_path / "marks" / "undo.sh").touch()
    arguments = [str(agent.path), "web1", str(tmp_path / "marks")]
    for target in (host.target(), LOCAL):
        way = reach.way_to(target, arguments)
        first, second = json.loads(way.ask(20)), json.loads(way.ask(20))
        way.close()
        assert first["status"]["state"] == "protected"
        assert first["marks"] == ["begun"]
        assert first["events"] == [], "what was noted before is not part of the drill"
        assert [one["epoch"] for one in second["epochs"]] == [first["epochs"][-1]["epoch"] + 1], "each epoch once"
        assert second["clock"] >= first["clock"]
    assert "python3 -c" in host.server.commands[0]


def test_a_host_or_agent_that_does_not_answer_is_told_apart(host: Host, tmp_path: Path) -> None:
    way = reach.way_to(LOCAL, [str(tmp_path / "none"), "web1", "/none"])
    said = json.loads(way.ask(20))
    way.close()
    assert (said["status"], "No such file" in said["error"]) == (None, True)
    with pytest.raises(Unreachable, match="ssh: "):
        reach.way_to(host.target(ansible_user="nobody"), ["a", "b", "c"])
    port = host.port
    host.cut()
    with pytest.raises(Unreachable):
        reach.way_to(host.target(ansible_port=port), ["a", "b", "c"])


def test_a_key_that_is_not_known_is_refused_unless_the_configuration_says_otherwise(host: Host) -> None:
    host.config.write_text("Host *\n  StrictHostKeyChecking yes\n")
    with pytest.raises(Unreachable, match="not found in known_hosts"):
        reach.way_to(host.target(), ["a", "b", "c"])


def test_a_guest_that_an_agent_does_not_know(agent: Agent) -> None:
    way = reach.way_to(LOCAL, [str(agent.path), "other", "/none"])
    said = json.loads(way.ask(20))
    way.close()
    assert (said["status"], said["error"]) == (None, "no domain other")


def test_a_conversation_that_ends_is_begun_anew(host: Host, agent: Agent, tmp_path: Path) -> None:
    stop, path = threading.Event(), tmp_path / "looks.jsonl"
    looks = Looks(host.target(), [str(agent.path), "web1", "/none"], path, 0.05, stop)
    looks.thread.start()
    wait(path, lambda lines: sum(line["reached"] for line in lines) >= 2)
    for process in host.server.processes:
        process.kill()
    wait(path, lambda lines: any(not line["reached"] for line in lines) and lines[-1]["reached"])
    host.cut()
    wait(path, lambda lines: not lines[-1]["reached"])
    stop.set()
    looks.thread.join(20)
    assert not looks.thread.is_alive()
    lines = list(folder.lines(path))
    assert all(line["asked"] <= line["answered"] for line in lines)
    assert [line["asked"] for line in lines] == sorted(line["asked"] for line in lines)


def test_a_host_that_is_lost_before_it_has_begun_what_it_was_told_to(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "BEGIN", 0.5)
    stands = threading.Event()
    monkeypatch.setattr(host.server, "check_channel_exec_request", lambda *_: stands.wait(60))
    began = time.monotonic()
    with pytest.raises(Unreachable):
        reach.way_to(host.target(), ["a", "b", "c"])
    assert time.monotonic() - began < 30
    stands.set()


def test_the_first_answer_may_take_longer(tmp_path: Path) -> None:
    """What answers has to be started there."""
    asked: list[float] = []

    class Slow:
        """A way."""

        def ask(self, patience: float) -> str:
            asked.append(patience)
            return "{}"

        def close(self) -> None:
            """Nothing to end."""

    stop, path = threading.Event(), tmp_path / "looks.jsonl"
    looks = Looks(LOCAL, [], path, 0.05, stop, lambda *_: Slow())
    looks.thread.start()
    wait(path, lambda lines: len(lines) >= 2)
    stop.set()
    looks.thread.join(20)
    assert asked[0] > asked[1] == asked[-1]


def wait(path: Path, enough: Any, seconds: float = 30) -> None:
    """Until the lines of a file are enough."""
    deadline = time.monotonic() + seconds
    while not (lines := list(folder.lines(path))) or not enough(lines):
        assert time.monotonic() < deadline, lines[-3:]


def test_what_the_inventory_says_comes_before_the_file(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "Host gate\n  HostName 192.0.2.9\n  Port 2222\n  User file\n  IdentityFile /k\n  ProxyJump jump\n"
    )
    said = {"ansible_host": "gate", "ansible_ssh_common_args": f"-o X=y -F '{config}'"}
    found = reach.settings(Target.of("alpha", said))
    assert (found["address"], found["port"], found["user"], found["keys"]) == ("192.0.2.9", 2222, "file", ["/k"])
    assert found["proxy"] == f"ssh -F {config} -W 192.0.2.9:2222 jump"
    assert found["checked"] is True
    more = said | {"ansible_port": 23, "ansible_user": "me", "ansible_ssh_private_key_file": "/mine"}
    found = reach.settings(Target.of("alpha", more))
    assert (found["port"], found["user"], found["keys"]) == (23, "me", ["/mine"])


def test_files_of_the_inventory_may_be_below_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ansible takes the name of a key; paramiko alone would look for a folder of the name `~`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config").write_text("Host *\n  User file\n  ProxyJump jump\n")
    said = {"ansible_ssh_private_key_file": "~/.ssh/id", "ansible_ssh_common_args": "-F ~/config"}
    found = reach.settings(Target.of("alpha", said))
    assert (found["keys"], found["user"]) == ([f"{tmp_path}/.ssh/id"], "file")
    assert found["proxy"] == f"ssh -F {tmp_path}/config -W alpha:22 jump"
    with pytest.raises(Unreachable, match="~nobody-here/id: no such user"):
        reach.settings(Target.of("alpha", {"ansible_ssh_private_key_file": "~nobody-here/id"}))


def test_it_is_run_as_the_inventory_says() -> None:
    target = Target.of("alpha", {"ansible_become": "true", "ansible_python_interpreter": "auto_silent"})
    words = reach.command(target, ["/run/x", "web1", "/m"])
    assert words[:4] == ["sudo", "-n", "/usr/bin/python3", "-c"]
    assert words[-3:] == ["/run/x", "web1", "/m"]
    assert target.address == "alpha"


def test_what_does_not_get_ready_in_time_is_ended_and_told(tmp_path: Path) -> None:
    way = {"socket": str(tmp_path / "agent.sock"), "ansible_connection": "local"}
    asking = {"address": None, "kind": "echo", "interval": 0.05, "command": "exit 1", "grace": 1}
    made = plan(hosts={"alpha": way, "beta": way}, look_seconds=0.05, ready=0.5, client=asking)
    (tmp_path / "plan.json").write_text(json.dumps(made))
    program = str(Path(watch.__file__).parents[1] / "remus_drill.py")
    began = time.monotonic()
    with pytest.raises(watch.NotReady, match=r"the agent of alpha is not reached .* the guest does not answer"):
        watch.start(tmp_path, [sys.executable, program])
    assert time.monotonic() - began < 30, "a minute is for real hosts"
    assert not (tmp_path / "watching").exists()


def said(where: Path, alpha: str, beta: str, *answers: float) -> list[str]:
    """What is missing in a folder with these states, and answers of the client at these moments; the fault was undone at 20."""
    (where / "plan.json").write_text(json.dumps(plan()))
    (where / "phases.jsonl").write_text(json.dumps({"phase": "mended", "mono": 20.0, "wall": 0}) + "\n")
    lines = [{"event": "answered", "mono": at, "number": 1} for at in answers]
    (where / "client.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, state in (("alpha", alpha), ("beta", beta)):
        role = "primary" if state in ("protected", "silent") else "backup"
        status = {"role": role, "state": state} if state else None
        folder.looks(where, name).write_text(json.dumps({"status": status, "error": "refused"}) + "\n")
    return watch.settled(where)


def test_when_a_drill_is_over(tmp_path: Path) -> None:
    assert said(tmp_path, "protected", "ready", 10.0, 21.0) == []
    assert said(tmp_path, "ready", "protected", 21.0) == []
    assert said(tmp_path, "silent", "ready", 21.0) == ["redis1 is not protected: alpha says silent, beta says ready"]
    assert said(tmp_path, "protected", "", 21.0) == [
        "redis1 is not protected: alpha says protected, beta does not answer (refused)"
    ]
    assert len(said(tmp_path, "protected", "protected", 21.0)) == 1
    assert said(tmp_path, "protected", "ready", 10.0) == [
        "redis1 has not answered its client since the fault was undone"
    ]
    began = time.monotonic()
    assert watch.settle(tmp_path, 60.0) != []
    assert time.monotonic() - began < 30, "nobody looks any more, so nothing can come"
