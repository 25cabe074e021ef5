"""What somebody on the way has written down is of no use to him: over TLS nothing of it is taken in again."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from certificates import Authority
from deadline import until

from remus_agent.adapters.transport.tls import MutualTls
from tests.unit.replication.test_tls import ASK, LOCAL, beta, dial, warnings


@pytest.fixture
def site(tmp_path: Path) -> Authority:
    """The CA of both hosts."""
    return Authority(tmp_path)


@asynccontextmanager
async def recorder(address: str) -> AsyncIterator[tuple[str, bytearray]]:
    """Somebody on the way, who writes down all that is sent to an address. Where he listens, and what he has."""
    taken = bytearray()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = address.rsplit(":", 1)
        there, back = await asyncio.open_connection(host, int(port))

        async def forth() -> None:
            while data := await reader.read(65536):
                taken.extend(data)
                back.write(data)
            back.close()

        async def answers() -> None:
            while data := await there.read(65536):
                writer.write(data)
            writer.close()

        await asyncio.gather(forth(), answers(), return_exceptions=True)

    listener = await asyncio.start_server(pass_on, LOCAL, 0)
    try:
        yield f"{LOCAL}:{listener.sockets[0].getsockname()[1]}", taken
    finally:
        listener.close()


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
async def test_what_was_recorded_of_a_session_is_refused_when_it_is_sent_again(
    site: Authority, caplog: pytest.LogCaptureFixture, tls: bool
) -> None:
    """Each connection has keys of its own, to which both sides contribute, and none begins where an earlier one ended. Plain
    TCP takes it in, which shows that the recording is one."""
    files = site.issue("alpha") if tls else None
    async with beta(site.issue("beta") if tls else None) as host, recorder(host.address) as (address, taken):
        connection = await dial(files, address)
        await connection.send(ASK)
        assert (await connection.receive()).epoch == 7
        await connection.close()
        assert len(host.identities) == 1
        _, writer = await asyncio.open_connection(*host.address.rsplit(":", 1))
        writer.write(taken)
        await writer.drain()
        if tls:
            await until(lambda: "connection from" in warnings(caplog))  # it has ended, with an error
            assert host.identities == ["alpha"], "nobody was let in by it"
        else:
            await until(lambda: len(host.identities) == 2)
        writer.close()


async def test_no_session_can_be_resumed(site: Authority) -> None:
    """Or a certificate that has expired, or is trusted no more, would go on letting its host in."""
    own = MutualTls(site.issue("beta"), "beta", {"alpha": f"{LOCAL}:1"}).own()
    assert own.server.num_tickets == 0
    assert own.server.minimum_version is ssl.TLSVersion.TLSv1_3
    assert own.server.session_stats()["hits"] == 0
