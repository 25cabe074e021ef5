"""The endpoint as the agent puts it together, on a real socket, over an agent with simulated hosts."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from pathlib import Path

import pytest
from certificates import Authority
from etcd_server import free_ports

from remus_agent import __main__ as program
from remus_agent import config
from remus_agent.adapters.clock import SystemClock
from remus_agent.adapters.transport import tls
from tests.model.pair import Pair, on

CONFIGURATION = """
[host]
name = "alpha"
[replication]
listen = "127.0.0.1:{replication}"
peers = {{ beta = "127.0.0.2:7789" }}
[paths]
run = "{run}"
[http]
listen = "127.0.0.1:{http}"
[tls]
ca = "{files.ca}"
certificate = "{files.certificate}"
key = "{files.key}"
"""


async def ask(port: int, target: str) -> tuple[int, str, bytes]:
    """Status, content type and body."""

    def blocking() -> tuple[int, str, bytes]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            connection.request("GET", target)
            response = connection.getresponse()
            return response.status, response.getheader("Content-Type", ""), response.read()

    return await asyncio.to_thread(blocking)


async def listens(port: int) -> bool:
    try:
        return bool(await ask(port, "/liveness"))
    except OSError:
        return False


@pytest.mark.parametrize("supervised", [True, False])
async def test_every_page(tmp_path: Path, supervised: bool) -> None:
    replication, port = free_ports(2)
    text = CONFIGURATION.format(
        replication=replication, http=port, run=tmp_path, files=Authority(tmp_path).issue("alpha", days=30)
    )
    settings = config.parse(text)
    config.check_own(settings)
    assert settings.http is not None
    pair = Pair()
    await pair.protect()
    async with contextlib.AsyncExitStack() as stack:
        if supervised:
            supervisor = stack.enter_context(socket.socket(socket.AF_UNIX))
            supervisor.bind(str(tmp_path / "supervisor.sock"))
            supervisor.listen()
        await program._serve_http(
            stack,
            settings,
            settings.http,
            on(pair.alpha),
            pair.alpha.xen,  # type: ignore[arg-type]
            SystemClock(),
            tls.of_config(settings),
        )
        async with asyncio.timeout(30):
            while not await listens(port):  # noqa: ASYNC110 - a poll with a deadline
                await asyncio.sleep(0.01)
        for path in ("/primary", "/protected", "/readiness?domain=web1", "/liveness"):
            status, kind, body = await ask(port, path)
            ok = supervised or not path.startswith("/readiness")
            assert (status, kind) == (200 if ok else 503, "application/json"), body
            assert json.loads(body)["ok"] is ok
        status, kind, body = await ask(port, "/metrics")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert b'remus_domain_protected{domain="web1"} 1.0\n' in body
        assert b"remus_supervisor_up %.1f\n" % supervised in body
        assert b"remus_certificate_usable 1.0\n" in body
        assert b"remus_witness_up" not in body
    assert not await listens(port)
    await on(pair.alpha).close()
    await on(pair.beta).close()
