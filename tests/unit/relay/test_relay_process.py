"""`remusctl stream send` as a process, over real pipes, files and TCP, to a real backup service on a simulated Xen."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import deadline
import pytest
from etcd_server import free_ports
from streams import builder
from streams.builder import Epoch

from remus_agent.adapters.descriptor import DescriptorSource
from remus_agent.adapters.sim.local import SimJournal
from remus_agent.adapters.transport import tcp
from remus_agent.adapters.transport.control_server import ControlServer
from remus_agent.cli import main as cli
from remus_agent.cli.send import BANNER
from remus_agent.errors import FileError
from remus_agent.services.copy import Copy
from remus_agent.services.requests import handlers
from remus_agent.store_ports import CommitRecord
from tests.model.pair import UUID, Pair, on

SECONDS = 60.0
"""Processes are started here."""
run = functools.partial(deadline.run, seconds=SECONDS)
until = functools.partial(deadline.until, seconds=SECONDS)
FRONT = builder.preamble(
    {"c_info": {"type": "pvh", "name": "web1", "uuid": UUID}, "b_info": {"max_memkb": 256, "pages": 64}}
)
EPOCHS = [Epoch(dict.fromkeys(range(64), 1)), Epoch({3: 2}), Epoch({3: 3})]
STREAM = builder.checkpointed(EPOCHS, FRONT)
FIRST = len(FRONT + EPOCHS[0].raw)


class Agents:
    """alpha's control socket and configuration, beta's replication port. gate: nothing is committed while it is clear."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{port}"
        self.pair = Pair()
        self.pair.beta.xen.host = type(self.pair.beta.xen.host)("4.17", "c0ffee", 1 << 20)
        self.gate = asyncio.Event()
        self.gate.set()
        self.config = folder / "agent.toml"
        self.config.write_text(
            '[host]\nname = "alpha"\n[replication]\nlisten = "127.0.0.1:7789"\n'
            f'[replication.peers]\nbeta = "{self.address}"\n[timeouts]\nconnect = 3.0\n'
        )

    @property
    def copy(self) -> Copy | None:
        return on(self.pair.beta).backup.copy_of("web1")

    @property
    def committed(self) -> int:
        return self.copy.committed_epoch if self.copy else 0

    async def start(self, *words: str | Path, stdin: Any = None) -> asyncio.subprocess.Process:
        heed = ["env", "--default-signal=INT,HUP,TERM"]
        command = [*heed, sys.executable, "-m", "remus_agent.remusctl", "--socket", self.folder / "agent.sock"]
        return await asyncio.create_subprocess_exec(
            *map(str, [*command, "stream", "send", "--config", self.config, *words]),
            stdin=asyncio.subprocess.PIPE if stdin is None else stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )


@contextlib.asynccontextmanager
async def agents(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Agents]:
    commit = SimJournal.commit
    found: Agents | None = None

    async def serve(connection: tcp.TcpConnection) -> None:
        assert found is not None
        await on(found.pair.beta).backup.on_connection(connection)

    async def gated(journal: SimJournal, record: CommitRecord) -> None:
        assert found is not None
        await found.gate.wait()
        await commit(journal, record)

    monkeypatch.setattr(SimJournal, "commit", gated)
    listener = await tcp.serve("127.0.0.1:0", {"127.0.0.1"}, serve)
    found = Agents(folder, listener.address.port)
    control = ControlServer(
        folder / "agent.sock",
        handlers(on(found.pair.alpha), lambda *_: []),
    )
    await control.start()
    try:
        yield found
    finally:
        await control.close()
        await listener.close()


def write(process: asyncio.subprocess.Process, data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)


async def summary(process: asyncio.subprocess.Process, code: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON summary and error of a process that ends with this code."""
    _, said = await process.communicate(b"")
    lines = [json.loads(line) for line in said.splitlines()]
    assert process.returncode == code, said
    return (
        next((line["summary"] for line in lines if "summary" in line), {}),
        next((line["error"] for line in lines if "error" in line), {}),
    )


def test_as_the_command_of_xl_remus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with agents(tmp_path, monkeypatch) as pair:
            process = await pair.start("--to", "beta", "--domain", "web1", "--banner", "--json")
            assert process.stdout is not None
            assert await process.stdout.readexactly(len(BANNER)) == BANNER
            assert on(pair.pair.alpha)._taken.is_reserved("web1"), "reserved before xl touches the guest"
            write(process, STREAM[:FIRST])
            await until(lambda: pair.committed == 1)
            write(process, STREAM[FIRST:])
            await until(lambda: pair.committed == 3)
            found, error = await summary(process, 15)
            assert not error
            assert found.pop("seconds") > 0
            assert pair.copy is not None
            assert found == {
                "backup": pair.address,
                "domain": "web1",
                "session": pair.copy.hello.session,
                "epochs": 3,
                "pages": 66,
                "bytes": len(STREAM),
                "ended": "between-epochs",
            }
            await until(lambda: pair.copy is not None and pair.copy.state.value == "orphaned")
            assert not on(pair.pair.alpha)._taken.is_reserved("web1")

    run(test())


def test_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with agents(tmp_path, monkeypatch) as pair:
            (tmp_path / "remus").write_bytes(STREAM[:-5])
            process = await pair.start("--to", "beta", tmp_path / "remus")
            _, said = await process.communicate(b"")
            text = said.decode()
            assert process.returncode == 14, text
            assert "acknowledged:     2 epochs, 65 pages\n" in text
            assert "the stream ended: broken off\n" in text
            assert f"remusctl: read {tmp_path}/remus, domain web1, epoch 3: truncated" in text
            assert "state left: the backup holds epoch 2; what came after it is dropped" in text
            assert pair.committed == 2

    run(test())


def test_the_writer_of_the_pipe_is_held_until_the_acknowledgement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with agents(tmp_path, monkeypatch) as pair:
            pair.gate.clear()
            reader, writer = os.pipe()
            os.set_blocking(writer, False)
            process = await pair.start("--to", "beta", stdin=reader)
            os.close(reader)
            rest = memoryview(builder.checkpointed([EPOCHS[0]] * 40, FRONT))
            taken = 0
            begun = last = asyncio.get_running_loop().time()
            # Held: nothing is taken for two seconds, after the process has begun to read at all.
            while (now := asyncio.get_running_loop().time()) < last + 2 or (taken <= FIRST and now < begun + 60):
                try:
                    taken += os.write(writer, rest[taken:])
                    last = asyncio.get_running_loop().time()
                except BlockingIOError:
                    await asyncio.sleep(0.02)
            assert FIRST < taken <= FIRST + 2 * 65536, "one pipe full, and what one read took with the end of the epoch"
            assert pair.committed == 0
            pair.gate.set()
            while taken < len(rest):
                try:
                    taken += os.write(writer, rest[taken:])
                except BlockingIOError:
                    await asyncio.sleep(0.02)
            os.close(writer)
            await process.communicate()
            assert (process.returncode, pair.committed) == (15, 40)

    run(test())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_while_it_waits_for_xl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    async def test() -> None:
        async with agents(tmp_path, monkeypatch) as pair:
            process = await pair.start("--to", "beta", "--json")
            write(process, STREAM[:-100])
            await until(lambda: pair.committed == 2)  # so that the acknowledgement of epoch 1 has arrived
            process.send_signal(number)
            assert process.stderr is not None
            said = await process.stderr.read()
            assert await process.wait() == code
            assert json.loads(said)["summary"]["epochs"] in (1, 2)
            await until(lambda: pair.copy is not None and pair.copy.state.value == "orphaned")

    run(test())


def test_what_ends_it_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with agents(tmp_path, monkeypatch) as pair:
            (tmp_path / "remus").write_bytes(STREAM)
            (tmp_path / "plain").write_bytes(builder.plain(EPOCHS[:1], FRONT))
            (tmp_path / "damaged").write_bytes(STREAM + b"\xff" * 99)
            dead = f"127.0.0.1:{free_ports(1)[0]}"
            for words, code, said in (
                (("--to", "gamma", tmp_path / "remus"), 2, "neither a peer in"),
                (("--to", "beta", tmp_path / "none"), 13, "No such file"),
                (("--to", dead, tmp_path / "remus"), 7, "Connection refused"),
                (("--to", "beta", tmp_path / "plain"), 3, "plain stream"),
                (("--to", "beta", tmp_path / "damaged"), 6, "expected"),
                (("--to", "beta", "--domain", "web2", tmp_path / "remus"), 3, "not of web2"),
                (("--to", "beta", "--banner"), 2, "--banner needs --domain"),
                (("--to", "beta", "--banner", "--domain", "web1", tmp_path / "remus"), 2, "for standard input"),
            ):
                process = await pair.start(*words, "-o", "json")
                _, error = await summary(process, code)
                assert said in error["message"]
            pair.pair.beta.xen.host = type(pair.pair.beta.xen.host)("4.18", "c0ffee", 1 << 20)
            _, error = await summary(await pair.start("--to", "beta", tmp_path / "remus", "--json"), 7)
            assert "alpha runs Xen 4.17, beta runs Xen 4.18" in error["message"]

    run(test())


def test_a_protected_domain_and_an_agent_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with agents(tmp_path, monkeypatch) as pair:
            pair.pair.beta.xen.host = pair.pair.alpha.xen.host
            await pair.pair.protect()
            process = await pair.start("--to", "beta", "--domain", "web1", "--banner", "--json")
            out, said = await process.communicate(b"")
            assert (process.returncode, out) == (5, b""), said
            assert "this host's agent protects it, to beta" in said.decode()
        process = await pair.start("--to", "beta", "--domain", "web1", "--banner", "--json")
        out, said = await process.communicate(b"")
        assert (process.returncode, out) == (12, b""), said

    run(test())


def test_a_descriptor_that_cannot_be_read(tmp_path: Path) -> None:
    async def test() -> None:
        reader, writer = os.pipe()
        with contextlib.closing(os.fdopen(writer, "wb")), contextlib.closing(os.fdopen(reader, "rb")):
            source = DescriptorSource(writer, "the wrong end")
            os.write(writer, b"x")
            monitored = asyncio.create_task(source.read())
            await asyncio.sleep(0)
            monitored.cancel()
            await asyncio.wait({monitored})
            assert os.read(reader, 9) == b"x", "a read that was given up took nothing"
        folder = os.open(tmp_path, os.O_RDONLY)
        try:
            with pytest.raises(FileError, match="cannot read it: Is a directory"):
                await DescriptorSource(folder, "it").read()
        finally:
            os.close(folder)

    run(test())


def test_other_commands_do_not_wait_for_the_event_loop() -> None:
    code = "import remus_agent.remusctl, sys; sys.exit(bool({'numpy', 'asyncio'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_line_alone_cannot_send(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stream", "send", "--to", "beta", str(tmp_path)]) == 2
    assert "installed remusctl" in capsys.readouterr().err
