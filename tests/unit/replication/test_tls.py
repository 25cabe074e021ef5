"""Who is let in over TLS, and what both sides are told when not: real sockets, real certificates."""

from __future__ import annotations

import asyncio
import datetime
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from certificates import Authority
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from deadline import until

from remus_agent.adapters.transport.tcp import Listener, TcpConnection, TcpConnector, serve
from remus_agent.adapters.transport.tls import MutualTls, of_config
from remus_agent.config import Tls, parse
from remus_agent.errors import ConfigError, ConnectionLost, PeerError, PeerTimeout, RemusError
from remus_agent.protocol.replication.frames import Frame, FrameType

LOCAL = "127.0.0.1"
ASK = Frame(FrameType.HEARTBEAT, 7)


@pytest.fixture
def site(tmp_path: Path) -> Authority:
    """The CA of both hosts."""
    return Authority(tmp_path)


class Beta:
    """The host beta, which answers one frame of each connection and remembers who came."""

    def __init__(self) -> None:
        self.identities: list[str | None] = []
        self.listener: Listener

    async def answer(self, connection: TcpConnection) -> None:
        """Serve one connection."""
        self.identities.append(connection.identity)
        while True:
            await connection.send(await connection.receive())

    @property
    def address(self) -> str:
        return str(self.listener.address)


@asynccontextmanager
async def beta(files: Tls | None, peers: tuple[str, ...] = ("alpha",), silence: float = 30) -> AsyncIterator[Beta]:
    """beta as it listens with these files."""
    host = Beta()
    tls = files and MutualTls(files, "beta", {name: f"{LOCAL}:{number}" for number, name in enumerate(peers, 1)})
    host.listener = await serve(f"{LOCAL}:0", {LOCAL}, host.answer, tls=tls, silence=silence)
    try:
        yield host
    finally:
        await host.listener.close()


async def dial(files: Tls | None, address: str, *, host: str = "alpha", peer: str = "beta") -> TcpConnection:
    """Connect as a host does."""
    return await TcpConnector(silence=30, tls=files and MutualTls(files, host, {peer: address})).connect(address, 10)


async def error_of_alpha(files: Tls | None, address: str) -> RemusError:
    """What alpha meets first, when it connects or when it speaks."""
    try:
        connection = await dial(files, address)
    except RemusError as error:
        return error
    try:
        await connection.send(ASK)
        frame = await connection.receive()
    except RemusError as error:
        return error
    finally:
        await connection.close()
    raise AssertionError(f"it was answered: {frame}")


def warnings(caplog: pytest.LogCaptureFixture) -> str:
    """What was logged, without a traceback."""
    assert not [record for record in caplog.records if record.exc_info]
    return "\n".join(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)


async def test_both_sides_know_each_other(site: Authority) -> None:
    async with beta(site.issue("beta")) as host:
        connection = await dial(site.issue("alpha"), host.address)
        await connection.send(ASK)
        assert (await connection.receive()).epoch == 7
        assert connection.identity == "beta"
        assert host.identities == ["alpha"]
        await connection.close()


async def test_plain_tcp_knows_nobody(site: Authority) -> None:
    async with beta(None) as host:
        connection = await dial(None, host.address)
        await connection.send(ASK)
        await connection.receive()
        assert (connection.identity, host.identities) == (None, [None])
        await connection.close()


FOREIGN = "its certificate is not of the CA that this host trusts"


@pytest.mark.parametrize("same_name", [True, False])
async def test_a_foreign_ca(site: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture, same_name: bool) -> None:
    other = Authority(tmp_path / "other", "site" if same_name else "elsewhere")
    async with beta(site.issue("beta")) as host:
        intruder = other.issue("alpha")
        assert FOREIGN in str(await error_of_alpha(intruder, host.address))
        intruder.ca.write_bytes(site.pem + other.pem)  # it trusts beta, beta does not trust it
        error = await error_of_alpha(intruder, host.address)
        assert isinstance(error, PeerError)
        assert "it does not trust the CA of this host's certificate Next: install certificates of one CA" in str(error)
        assert host.identities == []
    assert re.search(f"connection from {LOCAL}:[0-9]+ ended: .*{FOREIGN} Next: ", warnings(caplog))


@pytest.mark.parametrize(("start", "what"), [(-40, "has expired, on 20"), (1, "is not valid before 20")])
async def test_an_own_certificate_at_the_wrong_time(site: Authority, start: float, what: str) -> None:
    async with beta(site.issue("beta")) as host:
        files = site.issue("alpha", start=start)
        error = await error_of_alpha(files, host.address)
        assert isinstance(error, PeerError), "a session tries again when it is renewed"
        assert f"{files.certificate} {what}" in str(error)
        assert error.hint
        assert host.identities == []


@pytest.mark.parametrize(
    ("start", "here", "there"),
    [
        (-40, "it says that this host's certificate has expired", "its certificate, or that of the CA, has expired"),
        (1, "it refuses this host's certificate, which may not be valid there yet", "its certificate is not valid yet"),
    ],
)
async def test_a_peer_with_a_certificate_at_the_wrong_time(
    site: Authority,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    start: float,
    here: str,
    there: str,
) -> None:
    """Its clock is wrong, so that it shows the certificate."""
    monkeypatch.setattr("remus_agent.adapters.transport.tls.Own.check", lambda *_: None)
    async with beta(site.issue("beta")) as host:
        assert here in str(await error_of_alpha(site.issue("alpha", start=start), host.address))
        await until(lambda: there in warnings(caplog))
        assert host.identities == []
    async with beta(site.issue("beta", start=start)) as host:
        assert there in str(await error_of_alpha(site.issue("alpha"), host.address))


async def test_names_that_are_not_configured(site: Authority, caplog: pytest.LogCaptureFixture) -> None:
    async with beta(site.issue("beta"), peers=("alpha", "delta")) as host:
        for names in (("gamma",), ("*",), ("alpha.example.org",), ("ALPHA",)):
            # It wants to pass for alpha, so its own agent has another name in its configuration.
            files = site.issue("gamma", *names)
            connection = await dial(files, host.address, host=names[0])
            with pytest.raises(ConnectionLost, match="maybe since it refuses this host: the log of its agent says why"):
                await connection.receive()
            await connection.close()
            assert f"shows a certificate of '{names[0]}': not among the configured peers Next: " in warnings(caplog)
        both = await dial(site.issue("alpha", "alpha", "delta"), host.address)
        with pytest.raises(ConnectionLost):
            await both.receive()
        await both.close()
        assert "'alpha', 'delta': several of the configured peers" in warnings(caplog)
        assert host.identities == []


async def test_another_host_answers_than_was_dialled(site: Authority) -> None:
    async with beta(site.issue("beta")) as host:
        with pytest.raises(ConnectionLost, match=r"shows a certificate of 'beta', not of gamma Next: see replication"):
            await dial(site.issue("alpha"), host.address, peer="gamma")
        with pytest.raises(ConnectionLost, match="not the address of a configured peer"):
            await TcpConnector(silence=30, tls=MutualTls(site.issue("alpha"), "alpha", {})).connect(host.address, 5)


def over_second_path(files: Tls, peer: str, address: str) -> TcpConnector:
    """As alpha reaches the second address of a peer."""
    return TcpConnector(
        silence=30,
        tls=of_config(
            parse(
                f"""
                [host]
                name = "alpha"
                [replication]
                listen = "{LOCAL}:7789"
                peers = {{ {peer} = "10.9.9.9:7789" }}
                second = "{LOCAL}:7790"
                second_paths = {{ {peer} = "{address}" }}
                [tls]
                ca = "{files.ca}"
                certificate = "{files.certificate}"
                key = "{files.key}"
                """
            )
        ),
    )


async def test_a_second_path_is_to_the_peer_and_nobody_else(site: Authority) -> None:
    files = site.issue("alpha")
    async with beta(site.issue("beta")) as host:
        connection = await over_second_path(files, "beta", host.address).connect(host.address, 5)
        await connection.send(ASK)
        assert await connection.receive() == ASK
        await connection.close()
        with pytest.raises(ConnectionLost, match="shows a certificate of 'beta', not of gamma"):
            await over_second_path(files, "gamma", host.address).connect(host.address, 5)


async def test_an_own_certificate_of_another_host(site: Authority) -> None:
    async with beta(site.issue("beta")) as host:
        files = site.issue("gamma")
        assert f"{files.certificate} names 'gamma', not this host alpha" in str(
            await error_of_alpha(files, host.address)
        )


async def test_a_certificate_that_is_not_for_clients(site: Authority) -> None:
    files = site.issue("alpha", usages=(ExtendedKeyUsageOID.SERVER_AUTH,))
    with pytest.raises(ConfigError, match="does not allow this use"):
        MutualTls(files, "alpha", {}).own()


async def test_a_plain_client(site: Authority, caplog: pytest.LogCaptureFixture) -> None:
    async with beta(site.issue("beta")) as host:
        error = await error_of_alpha(None, host.address)
        assert "maybe since it refuses this host: the log of its agent says why" in str(error)
        await until(lambda: "the other side does not speak TLS Next: add the section [tls]" in warnings(caplog))
        assert host.identities == []


async def test_a_plain_server(site: Authority, caplog: pytest.LogCaptureFixture) -> None:
    async with beta(None) as host:
        error = await error_of_alpha(site.issue("alpha"), host.address)
        assert isinstance(error, ConnectionLost)
        assert "Next: see whether its agent has a section [tls] too" in str(error)
        assert "speaks TLS, this host does not" in warnings(caplog)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_older_tls_is_refused(site: Authority, version: ssl.TLSVersion) -> None:
    files = site.issue("alpha")
    context = ssl.create_default_context(cafile=str(files.ca))
    context.load_cert_chain(files.certificate, files.key)
    context.check_hostname = False
    context.maximum_version = version

    def greet(address: tuple[str, int]) -> str | None:
        with socket.create_connection(address) as sock, context.wrap_socket(sock) as tls:
            tls.settimeout(60)
            return tls.version()

    async with beta(site.issue("beta")) as host:
        address = (host.listener.address.ip, host.listener.address.port)
        if version is ssl.TLSVersion.TLSv1_3:
            assert await asyncio.to_thread(greet, address) == "TLSv1.3"
        else:
            with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
                await asyncio.to_thread(greet, address)
            assert host.identities == []


async def test_a_client_without_a_certificate(site: Authority, caplog: pytest.LogCaptureFixture) -> None:
    context = ssl.create_default_context(cafile=str(site.issue("alpha").ca))
    context.check_hostname = False
    async with beta(site.issue("beta")) as host:
        reader, writer = await asyncio.open_connection(LOCAL, host.listener.address.port, ssl=context)
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            await reader.read()
        writer.close()
        assert "it has shown no certificate" in warnings(caplog)
        assert host.identities == []


async def test_a_client_that_never_begins(site: Authority, caplog: pytest.LogCaptureFixture) -> None:
    async with beta(site.issue("beta"), silence=0.2) as host:
        _, writer = await asyncio.open_connection(LOCAL, host.listener.address.port)
        await until(lambda: "did not finish TLS within 0.2 s" in warnings(caplog))
        writer.close()
    assert PeerTimeout.code == "peer-timeout"


async def test_certificates_change_while_a_connection_lives(tmp_path: Path, site: Authority) -> None:
    """The CA is replaced: first both are trusted, then new certificates come, then the old CA goes."""
    new = Authority(tmp_path / "new", "new")
    there, here = site.issue("beta"), site.issue("alpha")
    client = None
    async with beta(there) as host:
        client = TcpConnector(silence=30, tls=MutualTls(here, "alpha", {"beta": host.address}))
        connections = [await client.connect(host.address, 10)]
        for files in (there, here):
            files.ca.write_bytes(new.pem + site.pem)
        connections.append(await client.connect(host.address, 10))
        for name, files in (("beta", there), ("alpha", here)):
            fresh = new.issue(name, trusted=new.pem + site.pem)
            files.key.write_bytes(fresh.key.read_bytes())
            if name == "alpha":
                with pytest.raises(ConnectionLost, match="do not belong together"):
                    await client.connect(host.address, 10)
            files.certificate.write_bytes(fresh.certificate.read_bytes())
            connections.append(await client.connect(host.address, 10))
        for files in (there, here):
            files.ca.write_bytes(new.pem)
        connections.append(await client.connect(host.address, 10))
        assert FOREIGN in str(await error_of_alpha(site.issue("alpha", into="old"), host.address))
        for connection in connections:
            await connection.send(ASK)
            assert (await connection.receive()).epoch == 7
            await connection.close()
        assert host.identities == ["alpha"] * len(connections)


async def test_what_is_said_of_the_own_certificate(site: Authority, caplog: pytest.LogCaptureFixture) -> None:
    files = site.issue("alpha", start=-1, days=31)
    tls = MutualTls(files, "alpha", {})
    said = await tls.describe()
    assert said["names"] == ["alpha"]
    assert said["days_left"] == 30.0
    ends = datetime.datetime.fromisoformat(said["expires"])
    assert abs((ends - datetime.datetime.now(datetime.UTC)).total_seconds() - 30 * 86400) < 60
    with caplog.at_level(logging.INFO):
        tls.warn()
        assert "TLS as alpha; the certificate expires in 30.0 days" in caplog.text
        files.key.unlink()
        tls.warn()
    assert f"no connection with a peer can be made: TLS: {files.key} cannot be read: No such file" in caplog.text
    assert f"{files.key} cannot be read" in (await tls.describe())["error"]


@pytest.mark.parametrize(("name", "start", "usable"), [("alpha", -1, True), ("alpha", -40, False), ("beta", -1, False)])
async def test_until_when_it_is_valid_is_known_also_when_it_is_of_no_use(
    site: Authority, name: str, start: float, usable: bool
) -> None:
    tls = MutualTls(site.issue(name, start=start, days=31), "alpha", {})
    expires, accepted = await tls.validity()
    assert accepted is usable
    assert expires is not None
    assert abs(expires - datetime.datetime.now(datetime.UTC).timestamp() - (start + 31) * 86400) < 60


async def test_a_certificate_that_cannot_be_read_has_no_end(site: Authority) -> None:
    files = site.issue("alpha")
    files.certificate.unlink()
    assert await MutualTls(files, "alpha", {}).validity() == (None, False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda files: files.ca.write_text("none"), "has no CA certificate in PEM"),
        (lambda files: files.ca.write_text(""), "has no CA certificate in PEM"),
        (lambda files: files.certificate.write_text("none"), "are not a certificate and its key in PEM"),
        (lambda files: files.key.write_text("none"), "are not a certificate and its key in PEM"),
        (lambda files: files.certificate.unlink(), "host.pem cannot be read: No such file or directory"),
        (lambda files: files.ca.unlink(), "ca.pem cannot be read: No such file or directory"),
    ],
)
def test_files_that_are_of_no_use(site: Authority, damage: object, message: str) -> None:
    files = site.issue("alpha")
    assert callable(damage)
    damage(files)
    with pytest.raises(ConfigError, match=message) as caught:
        MutualTls(files, "alpha", {}).own()
    assert caught.value.hint


def test_a_key_with_a_password_is_refused_and_not_asked_for(site: Authority) -> None:
    files = site.issue("alpha")
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match=r"the key in tls\.key is encrypted"):
        MutualTls(files, "alpha", {}).own()
