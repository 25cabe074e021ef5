from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from deadline import run, until

from remus_agent.adapters.transport.control_server import MAX_RUNNING, ControlServer, ReportProgress
from remus_agent.errors import ConfigError, DomainNotFound
from remus_agent.protocol import control


class Agent:
    """A server with handlers that show each kind of ending."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "run" / "agent.sock"
        self.go_on = asyncio.Event()
        self.begun = 0
        self.finished = 0
        self.server = ControlServer(
            self.path,
            {
                "echo": self._echo,
                "missing": self._missing,
                "bug": self._bug,
                "slow": self._slow,
                "odd": self._odd,
                "chatty": self._chatty,
            },
        )

    async def _echo(self, params: dict[str, Any], _: ReportProgress) -> Mapping[str, Any]:
        return params

    async def _missing(self, params: dict[str, Any], _: ReportProgress) -> Mapping[str, Any]:
        raise DomainNotFound("no such domain", domain="web", hint="there are: redis1")

    async def _bug(self, params: dict[str, Any], _: ReportProgress) -> Mapping[str, Any]:
        raise KeyError("secret detail")

    async def _odd(self, params: dict[str, Any], _: ReportProgress) -> Mapping[str, Any]:
        return {"value": object()}

    async def _slow(self, params: dict[str, Any], progress: ReportProgress) -> Mapping[str, Any]:
        self.begun += 1
        progress("seeding", 1, 2, "pages", "first")
        await self.go_on.wait()
        progress("seeding", 2, 2, "pages")
        self.finished += 1
        return {"done": True}

    async def _chatty(self, params: dict[str, Any], progress: ReportProgress) -> Mapping[str, Any]:
        for number in range(50_000):
            progress("talking", number, 50_000, message="x" * 100)
        return {"done": True}

    async def __aenter__(self) -> Agent:
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.go_on.set()
        await self.server.close()


class Caller:
    def __init__(self, path: Path) -> None:
        self._path = path

    async def __aenter__(self) -> Caller:
        self.reader, self.writer = await asyncio.open_unix_connection(str(self._path), limit=1 << 24)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    def ask(self, method: str, number: int = 1, **params: Any) -> None:
        request = control.Request(version=1, id=number, method=method, params=params)
        self.writer.write(control.encode_request(request))

    async def answer(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.reader.readline())
        return found


def test_result_error_and_unknown_method(tmp_path: Path) -> None:
    async def test() -> None:
        async with Agent(tmp_path) as agent, Caller(agent.path) as caller:
            caller.ask("echo", 4, domain="redis1")
            assert await caller.answer() == {"id": 4, "result": {"domain": "redis1"}}
            caller.ask("missing", 5)
            assert await caller.answer() == {
                "id": 5,
                "error": {
                    "code": "domain-not-found",
                    "message": "no such domain",
                    "domain": "web",
                    "hint": "there are: redis1",
                },
            }
            caller.ask("format-disk", 6)
            error = (await caller.answer())["error"]
            assert error["message"] == "unknown method 'format-disk'"
            assert "bug, chatty, echo" in error["hint"]

    run(test())


def test_an_unexpected_exception_is_in_the_log_and_not_in_the_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with Agent(tmp_path) as agent, Caller(agent.path) as caller:
            caller.ask("bug")
            answer = await caller.answer()
            assert answer["error"]["code"] == "internal"
            assert "secret" not in json.dumps(answer)
            assert "Traceback" not in json.dumps(answer)
            caller.ask("odd")
            assert (await caller.answer())["error"]["code"] == "protocol"
            caller.ask("echo", a=1)
            assert (await caller.answer())["result"] == {"a": 1}

    run(test())
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert "secret detail" in str(record.exc_info[1])


def test_progress_then_the_result(tmp_path: Path) -> None:
    async def test() -> None:
        async with Agent(tmp_path) as agent, Caller(agent.path) as caller:
            caller.ask("slow", 9)
            first = (await caller.answer())["progress"]
            assert (first["phase"], first["done"], first["total"], first["unit"]) == ("seeding", 1, 2, "pages")
            caller.ask("echo", 10)
            assert (await caller.answer())["id"] == 10
            agent.go_on.set()
            assert (await caller.answer())["progress"]["elapsed"] >= first["elapsed"]
            assert await caller.answer() == {"id": 9, "result": {"done": True}}

    run(test())


def test_a_client_that_goes_away_cancels_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with Agent(tmp_path) as agent:
            async with Caller(agent.path) as caller:
                caller.ask("slow")
                await until(lambda: agent.begun == 1)
            agent.go_on.set()
            await until(lambda: agent.finished == 1)

    run(test())


def test_a_client_that_sends_no_more_still_gets_its_answer(tmp_path: Path) -> None:
    async def test() -> None:
        async with Agent(tmp_path) as agent, Caller(agent.path) as caller:
            caller.ask("slow")
            caller.writer.write_eof()
            await until(lambda: agent.begun == 1)
            agent.go_on.set()
            answers = [json.loads(line) for line in (await caller.reader.read()).splitlines()]
            assert answers[-1]["result"] == {"done": True}

    run(test())


def test_a_client_that_does_not_read_misses_progress_and_costs_no_memory(tmp_path: Path) -> None:
    async def test() -> None:
        async with Agent(tmp_path) as agent, Caller(agent.path) as caller:
            caller.ask("chatty")
            count = 0
            while "result" not in await caller.answer():
                count += 1
            assert 0 < count < 50_000

    run(test())


def test_malformed_lines_are_answered_and_too_long_ones_end_the_conversation(tmp_path: Path) -> None:
    async def test() -> None:
        async with Agent(tmp_path) as agent:
            async with Caller(agent.path) as caller:
                caller.writer.write(b'not json\n{"id":8,"version":1}\n{"id":9,"version":3,"method":"x"}\n')
                assert (await caller.answer())["id"] is None
                assert (await caller.answer())["id"] == 8
                answer = await caller.answer()
                assert (answer["id"], answer["error"]["code"]) == (9, "protocol")
                caller.ask("echo", 2)
                assert (await caller.answer())["id"] == 2
            async with Caller(agent.path) as caller:
                caller.writer.write(b"x" * (control.REQUEST_LIMIT + 1))
                assert "longer than" in (await caller.answer())["error"]["message"]
                assert await caller.reader.read() == b""

    run(test())


def test_a_client_may_not_start_any_number_of_requests(tmp_path: Path) -> None:
    async def test() -> None:
        async with Agent(tmp_path) as agent, Caller(agent.path) as caller:
            for number in range(MAX_RUNNING + 1):
                caller.ask("slow", number)
            while True:
                answer = await caller.answer()
                if "error" in answer:
                    break
            assert (answer["id"], answer["error"]["code"]) == (MAX_RUNNING, "refused")

    run(test())


def test_closing_waits_for_requests_then_says_that_the_agent_stops(tmp_path: Path) -> None:
    async def test() -> None:
        agent = Agent(tmp_path)
        await agent.server.start()
        async with Caller(agent.path) as caller:
            caller.ask("slow")
            await until(lambda: agent.begun == 1)
            await agent.server.close(grace=0.01)
            assert "progress" in await caller.answer()
            assert (await caller.answer())["error"]["message"] == "the agent is stopping"
            assert await caller.reader.read() == b""
        assert not agent.path.exists()
        await agent.server.close()

    run(test())


def test_the_socket_file(tmp_path: Path) -> None:
    async def test() -> None:
        async with Agent(tmp_path) as agent:
            info = agent.path.stat()
            assert stat.S_ISSOCK(info.st_mode)
            assert stat.S_IMODE(info.st_mode) == 0o660
            assert [path.name for path in agent.path.parent.iterdir()] == ["agent.sock"]
        assert list(agent.path.parent.iterdir()) == []

    run(test())


def test_its_group_when_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grp

    changed: list[tuple[int, int]] = []
    here = grp.getgrgid(os.getgid())
    monkeypatch.setattr(grp, "getgrnam", lambda name: here if name == "remus-admin" else None)
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: changed.append((uid, gid)))

    async def test() -> None:
        async with Agent(tmp_path):
            assert changed == [(-1, here.gr_gid)]

    run(test())


def test_a_socket_that_a_dead_agent_left_is_replaced(tmp_path: Path) -> None:
    async def test() -> None:
        (tmp_path / "run").mkdir()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "run" / "agent.sock"))
        async with Agent(tmp_path) as agent, Caller(agent.path) as caller:
            caller.ask("echo")
            assert (await caller.answer())["result"] == {}

    run(test())


def test_a_second_agent_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async def test() -> None:
        async with Agent(tmp_path) as agent:
            with pytest.raises(ConfigError, match="another agent answers"):
                await Agent(tmp_path).server.start()
            async with Caller(agent.path) as caller:
                caller.ask("echo")
                assert (await caller.answer())["result"] == {}

    run(test())


def test_a_file_that_is_no_socket_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "agent.sock").write_text("precious")
    with pytest.raises(ConfigError, match="is not a socket"):
        run(_start(tmp_path))
    assert (tmp_path / "run" / "agent.sock").read_text() == "precious"


def test_a_path_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ConfigError, match="cannot listen on"):
        run(_start(tmp_path))


async def _start(directory: Path) -> None:
    await Agent(directory).server.start()
