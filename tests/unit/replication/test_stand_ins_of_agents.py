"""The scripts of lab tests that stand in for an agent, run as on a lab host: with TLS and without, by its configuration."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import struct
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from deadline import SECONDS, until
from etcd_server import free_ports

from remus_agent.adapters.transport.tcp import TcpConnection, TcpConnector, serve
from remus_agent.adapters.transport.tls import MutualTls
from remus_agent.config import Tls
from remus_agent.errors import ConnectionLost, ReplicationError
from remus_agent.protocol.replication.digest import EpochDigest
from remus_agent.protocol.replication.frames import Frame, FrameType
from remus_agent.protocol.replication.message_frames import decode, encode, expect
from remus_agent.protocol.replication.messages import EpochEnd, Hello, MemoryAck, Welcome
from tests.lab.peer_socket import PeerSocket

LOCAL = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[3]
WITH_TLS = pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
HELLO = Hello(
    purpose="protect",
    session=str(uuid.UUID(int=1)),
    generation=1,
    domain="ghost",
    uuid=str(uuid.UUID(int=2)),
    guest_type="pvh",
    memory_kib=65536,
    xen_version="4.20",
    cpu_policy="00",
    host="alpha",
)


@pytest.fixture
def site(tmp_path: Path) -> Authority:
    """The CA of both hosts."""
    return Authority(tmp_path)


def configured(folder: Path, host: str, peer: str, files: Tls | None) -> Path:
    """What the agent of a host has in its configuration."""
    tls = f'[tls]\nca = "{files.ca}"\ncertificate = "{files.certificate}"\nkey = "{files.key}"\n' if files else ""
    path = folder / f"{host}.toml"
    path.write_text(
        f'[host]\nname = "{host}"\n[replication]\nlisten = "{LOCAL}:7789"\npeers = {{ {peer} = "192.0.2.9:7789" }}\n{tls}'
    )
    return path


@asynccontextmanager
async def script(name: str, *words: str, **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A script of tests/lab as it runs on a host."""
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, str(ROOT / "tests" / "lab" / name), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Beta:
    """The host beta: welcomes a HELLO, then reads frames until it cannot."""

    def __init__(self) -> None:
        self.came: list[str | None] = []
        self.ended: list[Exception] = []

    async def answer(self, connection: TcpConnection) -> None:
        """Serve one connection."""
        self.came.append(connection.identity)
        try:
            while True:
                hello = expect(await connection.receive(), Hello)
                welcome = Welcome(host="beta", session=hello.session, free_memory_kib=1)
                await connection.send(encode(welcome))
        except Exception as error:
            self.ended.append(error)
            raise

    async def end(self) -> Exception:
        """Why the next connection ended; the script may know of the end first."""
        await until(lambda: bool(self.ended))
        return self.ended.pop(0)


async def rogue(config: Path, address: str, case: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """What the rogue peer prints, None when it fails; and what it says on standard error."""
    ip, port = address.split(":")
    async with asyncio.timeout(SECONDS), script("rogue_peer.py", ip, port, str(config)) as process:
        out, said = await process.communicate(json.dumps({"hello": None, "hex": "", "shut": True, **case}).encode())
        return (json.loads(out) if process.returncode == 0 else None), said.decode()


def hello(**changes: Any) -> dict[str, Any]:
    """A HELLO as the lab tests give it; the script fills in the rest."""
    facts = {name: getattr(HELLO, name) for name in ("purpose", "domain", "guest_type", "memory_kib")}
    return facts | {"xen_version": "4.20", "cpu_policy": "00", "host": "alpha"} | changes


@WITH_TLS
async def test_the_rogue_peer_is_answered_and_its_garbage_refused(
    site: Authority, tmp_path: Path, encrypted: bool
) -> None:
    files = site.issue("alpha") if encrypted else None
    tls = MutualTls(site.issue("beta"), "beta", {"alpha": f"{LOCAL}:1"}) if encrypted else None
    host = Beta()
    listener = await serve(f"{LOCAL}:0", {LOCAL}, host.answer, tls=tls)
    config = configured(tmp_path, "alpha", "beta", files)
    try:
        said, errors = await rogue(config, str(listener.address), {"hello": hello()})
        assert said is not None, errors
        assert json.loads(said["answer"])["host"] == "beta"
        assert said["closed"]
        assert "the other side closed the connection" in str(await host.end())
        said, errors = await rogue(config, str(listener.address), {"hello": hello(), "hex": "de" * 4096})
        assert said is not None, errors
        assert said["closed"]
        assert isinstance(await host.end(), ReplicationError), "the garbage was read as a frame, not as TLS"
        said, errors = await rogue(config, str(listener.address), {"hex": b"RMUS\x01\x00".hex()})
        assert said is not None, errors
        assert said["closed"]
        assert "in the middle of a frame" in str(await host.end())
        assert host.came == ["alpha" if encrypted else None] * 3
    finally:
        await listener.close()


def test_an_end_after_the_other_sides_reset_is_a_lost_connection() -> None:
    """A refusal of garbage may reset the connection before the script has said that it sends no more."""
    with socket.create_server((LOCAL, 0)) as server:
        ours = socket.create_connection(server.getsockname(), timeout=SECONDS)
        theirs, _ = server.accept()
    with PeerSocket(ours, None) as connection:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        readable, _, _ = select.select([ours], [], [], SECONDS)
        assert readable
        with pytest.raises(ConnectionResetError):
            connection.end()


async def test_a_rogue_peer_that_is_kept_out_has_no_answer(site: Authority, tmp_path: Path) -> None:
    """A test of garbage must not take that for a refusal of the garbage."""
    host = Beta()
    tls = MutualTls(site.issue("beta"), "beta", {"alpha": f"{LOCAL}:1"})
    listener = await serve(f"{LOCAL}:0", {LOCAL}, host.answer, tls=tls)
    files = Authority(tmp_path / "other", "elsewhere").issue("alpha")
    files.ca.write_bytes(site.pem + files.ca.read_bytes())
    try:
        said, errors = await rogue(configured(tmp_path, "alpha", "beta", files), str(listener.address), {"hex": "de"})
        assert said is None
        assert "SSLError" in errors
        assert host.came == []
    finally:
        await listener.close()


FAKE_XL = """#!/bin/sh
echo "$@"
cat >"$XL_INPUT"
"""


@WITH_TLS
async def test_the_stock_receiver_hands_a_primarys_stream_to_xl(
    site: Authority, tmp_path: Path, encrypted: bool
) -> None:
    (tmp_path / "bin").mkdir()
    xl = tmp_path / "bin" / "xl"
    xl.write_text(FAKE_XL)
    xl.chmod(0o755)
    config = configured(tmp_path, "beta", "alpha", site.issue("beta") if encrypted else None)
    taken = tmp_path / "taken"
    more = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "XL_INPUT": str(taken)}
    (port,) = free_ports(1)
    async with asyncio.timeout(SECONDS), script("stock_receiver.py", LOCAL, str(port), str(config), **more) as process:
        connection = await dial(process, port, site.issue("alpha") if encrypted else None)
        assert connection.identity == ("beta" if encrypted else None)
        await connection.send(encode(HELLO))
        assert expect(await connection.receive(), Welcome).session == HELLO.session
        parts = [b"preamble", os.urandom(300_000), b"records"]
        digest = EpochDigest()
        for kind, part in zip((FrameType.PREAMBLE, FrameType.STREAM, FrameType.STREAM), parts, strict=True):
            digest.update(part)
            await connection.send(Frame(kind, 1, payload=[part]))
        end = EpochEnd(epoch=1, stream_bytes=digest.stream_bytes, pages=0, digest=digest.digest())
        await connection.send(encode(end))
        while not isinstance(message := decode(await connection.receive()), MemoryAck):
            continue  # heartbeats
        assert (message.epoch, message.digest) == (1, digest.digest())
        connection.abort()  # as of a primary that dies
        out, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert json.loads(out) == {"epochs": 1, "status": 0, "said": "migrate-receive -r\n"}
    assert taken.read_bytes() == b"".join(parts)


async def dial(process: asyncio.subprocess.Process, port: int, files: Tls | None) -> TcpConnection:
    """Connect as the primary's agent does, once the script listens."""
    address = f"{LOCAL}:{port}"
    connector = TcpConnector(silence=30, tls=files and MutualTls(files, "alpha", {"beta": address}))
    while True:
        try:
            return await connector.connect(address, 20)
        except ConnectionLost:
            assert process.returncode is None, await process.communicate()
            await asyncio.sleep(0.05)  # a poll; the test has a deadline
