"""The drill's client against services that answer, hold, lie, break off; and the operator's own command."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from drill import asking, client, folder
from drill_story import plan

PROGRAM = Path(__file__).resolve().parents[3] / "roles/remus_drill/files/remus_drill.py"


class Service:
    """Answers one connection after the other with what `reply` makes of the bytes that come. None closes the connection."""

    def __init__(self, reply: Callable[[bytes], bytes | None]) -> None:
        self.reply = reply
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            with link:
                while data := link.recv(65536):
                    answer = self.reply(data)
                    if answer is None:
                        break
                    link.sendall(answer)

    def close(self) -> None:
        """End it."""
        self._listener.close()


@pytest.fixture
def service() -> Iterator[Callable[[Callable[[bytes], bytes | None]], Service]]:
    """Makes services."""
    made: list[Service] = []

    def make(reply: Callable[[bytes], bytes | None]) -> Service:
        made.append(Service(reply))
        return made[-1]

    yield make
    for one in made:
        one.close()


def options(kind: str, address: tuple[str, int] | None, **more: Any) -> client.Options:
    """A fast one."""
    return client.Options(address, kind, 0.005, "remus-drill:t", **{"grace": 2.0, **more})


def until(path: Path, enough: Callable[[list[dict[str, Any]]], bool], seconds: float = 20) -> Callable[[], bool]:
    """A stop: when the lines of a file are enough. Fails after so many seconds."""
    deadline = time.monotonic() + seconds

    def stop() -> bool:
        assert time.monotonic() < deadline, list(folder.lines(path))[-5:]
        return enough(list(folder.lines(path)))

    return stop


def run(tmp_path: Path, wanted: client.Options, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """Lines of a client that was stopped when they were enough."""
    path = tmp_path / "client.jsonl"
    with path.open("w") as file:
        client.Client(wanted, client.Log(file), until(path, enough)).run()
    return list(folder.lines(path))


def events(lines: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    """Of one kind."""
    return [line for line in lines if line["event"] == event]


def answered(count: int) -> Callable[[list[dict[str, Any]]], bool]:
    """Enough when so many answers came."""
    return lambda lines: len(events(lines, "answered")) >= count


class Redis:
    """Enough of it; hold() keeps answers back."""

    def __init__(self) -> None:
        self.keys: dict[bytes, bytes] = {}
        self._rest = b""

    def __call__(self, data: bytes) -> bytes:
        self._rest += data
        replies = b""
        while (parsed := self._command()) is not None:
            words, self._rest = parsed
            replies += self._reply(words)
        return replies

    def _command(self) -> tuple[list[bytes], bytes] | None:
        head, end, rest = self._rest.partition(b"\r\n")
        if not end:
            return None
        words = []
        for _ in range(int(head[1:])):
            size, end, rest = rest.partition(b"\r\n")
            if not end or len(rest) < int(size[1:]) + 2:
                return None
            words.append(rest[: int(size[1:])])
            rest = rest[int(size[1:]) + 2 :]
        return words, rest

    def _reply(self, words: list[bytes]) -> bytes:
        if words[0] == b"INCR":
            self.keys[words[1]] = b"%d" % (int(self.keys[words[1]]) + 1)
            return b":%b\r\n" % self.keys[words[1]]
        if words[0] == b"SET":
            assert words[3:] == [b"EX", b"86400"], "nothing of a drill stays for good"
            self.keys[words[1]] = words[2]
            return b"+OK\r\n"
        if words[0] == b"DEL":
            return b":%d\r\n" % sum(self.keys.pop(key, None) is not None for key in words[1:])
        value = self.keys.get(words[1])
        return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def test_redis_counts_compares_and_leaves_nothing(tmp_path: Path, service: Any) -> None:
    redis = Redis()
    lines = run(tmp_path, options("redis", service(redis).address), answered(20))
    values = [line["value"] for line in events(lines, "answered")]
    assert values == list(range(1, len(values) + 1))
    (kept,), (checked,) = events(lines, "kept"), events(lines, "checked")
    assert kept["digest"] == checked["digest"]
    assert events(lines, "final")[0]["value"] == values[-1]
    assert redis.keys == {}
    assert lines[-1] == {"event": "end", "mono": lines[-1]["mono"], "reason": "stopped"}
    latencies = [line["seconds"] for line in events(lines, "answered")]
    assert all(0 <= seconds < 5 for seconds in latencies)


def test_an_answer_that_comes_late_is_not_taken_for_one_to_a_question(
    tmp_path: Path, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest's output is held, perhaps for longer than anybody waits for what it is to keep."""
    monkeypatch.setattr(client, "KEEP", 1.0)
    redis, late = Redis(), threading.Event()

    def reply(data: bytes) -> bytes | None:
        if not late.is_set():
            late.set()
            time.sleep(1.5)
        return redis(data)

    lines = run(tmp_path, options("redis", service(reply).address), answered(3))
    assert [line["connection"] for line in events(lines, "connected")] == [1, 2]
    assert events(lines, "damaged") == []
    assert [line["value"] for line in events(lines, "answered")][:3] == [1, 2, 3]
    assert len(events(lines, "kept")) == len(events(lines, "checked")) == 1


def test_what_is_kept_and_changed_is_seen(tmp_path: Path, service: Any) -> None:
    redis = Redis()

    def spoilt(data: bytes) -> bytes:
        if b"GET" in data and b":blob" in data:
            blob = redis.keys[b"remus-drill:t:blob"]
            redis.keys[b"remus-drill:t:blob"] = blob[:-1] + bytes([blob[-1] ^ 1])
        return redis(data)

    lines = run(tmp_path, options("redis", service(spoilt).address), answered(3))
    assert events(lines, "kept")[0]["digest"] != events(lines, "checked")[0]["digest"]


def test_it_asks_on_while_nothing_is_answered(tmp_path: Path, service: Any) -> None:
    held: list[bytes] = []
    free = threading.Event()

    def reply(data: bytes) -> bytes:
        held.append(data)
        if not free.is_set():
            return b""
        told, held[:] = b"".join(held), []
        return told

    def enough(lines: list[dict[str, Any]]) -> bool:
        if len(events(lines, "sent")) >= 20:
            free.set()
        return len(events(lines, "answered")) >= 20

    lines = run(tmp_path, options("echo", service(reply).address), enough)
    kinds = [line["event"] for line in lines]
    assert kinds.index("answered") > 20
    assert [line["number"] for line in events(lines, "answered")][:20] == list(range(1, 21))
    assert all(line["value"] is None for line in events(lines, "answered"))


def test_http_asks_one_question_at_a_time(tmp_path: Path, service: Any) -> None:
    asked: list[bytes] = []

    def reply(data: bytes) -> bytes:
        asked.append(data)
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n"

    lines = run(tmp_path, options("http", service(reply).address, path="/health"), answered(5))
    assert all(
        one.startswith(b"HEAD /health HTTP/1.1\r\nHost: 127.0.0.1\r\n") and one.count(b"HEAD") == 1 for one in asked
    )
    assert events(lines, "damaged") == []


@pytest.mark.parametrize(
    ("kind", "answer"),
    [("echo", b"remus-drill 7777\n"), ("http", b"220 ready\r\n\r\n"), ("echo", b"x\n")],
)
def test_an_answer_to_something_else_is_damage(tmp_path: Path, service: Any, kind: str, answer: bytes) -> None:
    lines = run(
        tmp_path, options(kind, service(lambda _: answer).address), lambda lines: bool(events(lines, "damaged"))
    )
    assert answer.split(b"\n")[0].strip().decode() in events(lines, "damaged")[0]["error"]


def test_an_error_of_the_guest_is_no_damage(tmp_path: Path, service: Any) -> None:
    def reply(data: bytes) -> bytes:
        return b"+OK\r\n" * data.count(b"SET") + b"-READONLY no\r\n" * data.count(b"INCR")

    lines = run(tmp_path, options("redis", service(reply).address), lambda lines: bool(events(lines, "refused")))
    assert events(lines, "damaged") == []
    assert events(lines, "refused")[0]["error"] == "READONLY no"


def test_a_connection_that_ends_is_noted_and_another_one_made(tmp_path: Path, service: Any) -> None:
    answers = iter([b"", None])

    def reply(data: bytes) -> bytes | None:
        return next(answers, data)

    def enough(lines: list[dict[str, Any]]) -> bool:
        return len(events(lines, "connected")) == 2 and bool(events(lines, "answered"))

    lines = run(tmp_path, options("echo", service(reply).address), enough)
    (lost,) = events(lines, "lost")
    assert (lost["connection"], lost["outstanding"] > 0) == (1, True)
    assert "closed the connection" in lost["error"]


def test_nobody_to_connect_to_is_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    path = tmp_path / "client.jsonl"
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 3

    with path.open("w") as file:
        client.Client(options("echo", address), client.Log(file), stop).run()
    assert [line["event"] for line in folder.lines(path)] == ["end"]


def test_a_probe_that_fails_says_why_and_one_that_hangs_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "client.jsonl"
    command = f"test -e {tmp_path}/second && exec sleep 60; touch {tmp_path}/second; echo no route >&2; exit 3"
    with path.open("w") as file:
        enough = until(path, lambda lines: len(events(lines, "probe")) >= 2)
        client.probe(options("echo", None, command=command, timeout=0.3), client.Log(file), enough)
    failed, hung = events(list(folder.lines(path)), "probe")
    assert (failed["code"], failed["words"]) == (3, "no route")
    assert (hung["code"], hung["words"]) == (-1, "no end within 0.3 s")


@pytest.mark.parametrize("how", ["signal", "file", "time"])
def test_the_process_ends_when_it_is_told_to(tmp_path: Path, how: str) -> None:
    said = plan(longest=0.5 if how == "time" else 600)
    said["client"] = {"address": None, "kind": "echo", "interval": 0.01, "command": "true", "grace": 1, "timeout": 5}
    (tmp_path / "plan.json").write_text(json.dumps(said))
    process = subprocess.Popen([sys.executable, PROGRAM, "client", tmp_path])
    try:
        deadline = time.monotonic() + 20
        while not any(line["event"] == "probe" for line in folder.lines(tmp_path / "client.jsonl")):
            assert time.monotonic() < deadline
            assert process.poll() is None or how == "time"
        if how == "signal":
            os.kill(process.pid, signal.SIGTERM)
        elif how == "file":
            (tmp_path / "stop").touch()
        assert process.wait(20) == 0
    finally:
        process.kill()
    assert (folder.last(tmp_path / "client.jsonl") or {})["event"] == "end"


def test_the_blob_is_the_same_for_the_same_drill_only() -> None:
    assert asking.blob("a") == asking.blob("a") != asking.blob("b")
    assert len(asking.blob("a")) == asking.BLOB_BYTES
