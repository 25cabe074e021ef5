"""Who is who between agents: mutual TLS 1.3 with certificates of the site's own CA.

A peer is accepted only with a certificate of that CA whose subjectAltName names one of the configured peers, exactly; where
this side has connected, the one it has dialled. Certificates are read again when their files have changed, for new
connections only: renewing them needs no restart, and a session that runs goes on with what it began with.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from remus_agent.adapters.transport.connection import TcpConnection
from remus_agent.adapters.transport.tls_errors import explain
from remus_agent.adapters.transport.tls_layer import TlsLayer
from remus_agent.config import Config, Tls
from remus_agent.errors import ConfigError, ConnectionLost, PeerTimeout

log = logging.getLogger(__name__)

_DAY: Final = 86400.0
_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME. Used only to look at this host's own certificate, never for a peer's."""
_RENEW: Final = "renew this host's certificate (playbooks/site.yml does; see docs/operations.md)"


@dataclass(frozen=True, slots=True)
class Own:
    """What this host shows and trusts. names: of the subjectAltName. begins, ends: when its certificate is valid, in seconds
    since 1970."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    names: tuple[str, ...]
    begins: float
    ends: float

    def days_left(self) -> float:
        """Days until the certificate expires; negative afterwards."""
        return (self.ends - time.time()) / _DAY

    def check(self, files: Tls, host: str) -> None:
        """Raises ConfigError when no peer could accept it."""
        now = time.time()
        if host not in self.names:
            raise ConfigError(
                f"{files.certificate} names {_listed(self.names)}, not this host {host}",
                operation="TLS",
                hint="see host.name in the configuration; the certificate must have it as DNS name in subjectAltName",
            )
        if now >= self.ends:
            raise ConfigError(f"{files.certificate} has expired, on {_date(self.ends)}", operation="TLS", hint=_RENEW)
        if now < self.begins:
            raise ConfigError(
                f"{files.certificate} is not valid before {_date(self.begins)}",
                operation="TLS",
                hint="compare the clock of this host with that of the host that made it",
            )


def of_config(settings: Config) -> MutualTls | None:
    """What the configuration asks for; None for plain TCP."""
    if settings.tls is None:
        return None
    peers = {name: str(address) for name, address in settings.replication.peers.items()}
    second = {name: str(address) for name, address in settings.replication.second_paths.items()}
    return MutualTls(settings.tls, settings.host.name, peers, second)


class MutualTls:
    """TLS of one agent. host: its name. peers: address by name of the peers. second: the same of their second paths."""

    def __init__(
        self, files: Tls, host: str, peers: Mapping[str, str], second: Mapping[str, str] | None = None
    ) -> None:
        self._files = files
        self._host = host
        self._names = frozenset(peers)
        self._dialled = {address: name for paths in (peers, second or {}) for name, address in paths.items()}
        self._loaded: tuple[object, Own] | None = None

    def own(self) -> Own:
        """What the files hold now, and peers accept. Blocks. Raises ConfigError."""
        own = self._current()
        own.check(self._files, self._host)
        return own

    def _current(self) -> Own:
        """What the files hold now; they are read when they have changed."""
        state = _state(self._files)
        if self._loaded is None or self._loaded[0] != state:
            self._loaded = (state, _load(self._files))
        return self._loaded[1]

    def warn(self) -> None:
        """Log what keeps connections from being made now. Not an error: an agent without them still answers, keeps guests
        running and activates copies."""
        try:
            own = self.own()
        except ConfigError as error:
            log.error("no connection with a peer can be made: %s", error)
        else:
            log.info("TLS as %s; the certificate expires in %.1f days", self._host, own.days_left())

    async def describe(self) -> dict[str, Any]:
        """For the answer about this agent: `names`, `expires` and `days_left` of its certificate, or the `error` for which
        there can be no new connection."""
        try:
            own = await asyncio.to_thread(self.own)
        except ConfigError as error:
            return {"error": str(error)}
        return {"names": list(own.names), "expires": _date(own.ends), "days_left": round(own.days_left(), 1)}

    async def validity(self) -> tuple[float | None, bool]:
        """When this host's certificate expires, in seconds since 1970 (None where it cannot be read), and whether peers accept it
        now."""
        try:
            own = await asyncio.to_thread(self._current)
        except ConfigError:
            return None, False
        try:
            own.check(self._files, self._host)
        except ConfigError:
            return own.ends, False
        return own.ends, True

    async def connect(self, connection: TcpConnection, address: str) -> None:
        """TLS over a connection that this side has made to address. Raises ConnectionLost."""
        name = self._dialled.get(address)
        if name is None:
            raise ConnectionLost(
                f"{address} is not the address of a configured peer, so no certificate is expected there",
                operation="TLS",
                hint="with [tls] only addresses of replication.peers and replication.second_paths can be reached",
            )
        own = await self._own()
        await connection.secure(TlsLayer(own.client, server=False), lambda layer: self._expect(layer, name, address))

    async def accept(self, connection: TcpConnection, timeout: float) -> None:
        """TLS over an accepted connection. Raises ConnectionLost, PeerTimeout."""
        try:
            async with asyncio.timeout(timeout):
                own = await self._own()
                await connection.secure(
                    TlsLayer(own.server, server=True), lambda layer: self._one_of_the_peers(layer, connection.peer)
                )
        except TimeoutError as error:
            raise PeerTimeout(f"{connection.peer} did not finish TLS within {timeout:g} s", operation="TLS") from error

    async def _own(self) -> Own:
        try:
            return await asyncio.to_thread(self.own)
        except ConfigError as error:
            # For a session it is a connection that cannot be made, which is tried again until the files are in order.
            raise ConnectionLost(error.message, operation="TLS", hint=error.hint) from error

    def _expect(self, layer: TlsLayer, name: str, address: str) -> str:
        names = _names(layer.certificate())
        if name not in names:
            raise ConnectionLost(
                f"{address} shows a certificate of {_listed(names)}, not of {name}",
                operation="TLS",
                hint="see replication.peers on this host, and which certificate is installed there",
            )
        return name

    def _one_of_the_peers(self, layer: TlsLayer, peer: str) -> str:
        names = _names(layer.certificate())
        known = self._names.intersection(names)
        if len(known) != 1:
            several = "several of the configured peers" if known else "not among the configured peers"
            raise ConnectionLost(
                f"{peer} shows a certificate of {_listed(names)}: {several}",
                operation="TLS",
                hint="each host needs a certificate of its own, with its name in replication.peers of the others",
            )
        return next(iter(known))


def _state(files: Tls) -> object:
    """Changes whenever one of the files does."""
    found = []
    for path in (files.ca, files.certificate, files.key):
        try:
            stat = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from error
        found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return found


def _load(files: Tls) -> Own:
    server = _context(ssl.PROTOCOL_TLS_SERVER, files)
    # A resumed session would not look at certificates again.
    server.num_tickets = 0
    client = _context(ssl.PROTOCOL_TLS_CLIENT, files)
    found = _inspect(files)
    return Own(
        server,
        client,
        _names(found),
        ssl.cert_time_to_seconds(found["notBefore"]),
        ssl.cert_time_to_seconds(found["notAfter"]),
    )


def _context(protocol: int, files: Tls) -> ssl.SSLContext:
    """A context for TLS 1.3 and later that demands a certificate of the CA from the other side. Names are compared by
    `MutualTls`, for both sides alike and without wildcards."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cafile=files.ca)
    except ssl.SSLError as error:
        raise ConfigError(
            f"{files.ca} has no CA certificate in PEM", operation="TLS", hint="see tls.ca in the configuration"
        ) from error
    except OSError as error:
        raise _unreadable(files.ca, error) from error
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except ssl.SSLError as error:
        mismatch = error.reason == "KEY_VALUES_MISMATCH"
        text = "do not belong together" if mismatch else "are not a certificate and its key in PEM"
        raise ConfigError(f"{files.certificate} and {files.key} {text}", operation="TLS", hint=_RENEW) from error
    except OSError as error:
        unreadable = files.certificate if not os.access(files.certificate, os.R_OK) else files.key
        raise _unreadable(unreadable, error) from error
    return context


def _no_password() -> str:
    raise ConfigError("the key in tls.key is encrypted", operation="TLS", hint="the agent needs one without a password")


def _inspect(files: Tls) -> dict[str, Any]:
    """This host's certificate as a peer with the same CA sees it, whenever it is valid: from a handshake with itself. Raises
    ConfigError when it is not of the CA."""
    contexts = _context(ssl.PROTOCOL_TLS_CLIENT, files), _context(ssl.PROTOCOL_TLS_SERVER, files)
    for context in contexts:
        context.verify_flags |= _NO_CHECK_TIME
    client, server = TlsLayer(contexts[0], server=False), TlsLayer(contexts[1], server=True)
    try:
        done = False
        while not done:
            client.handshake()
            _carry(client, server)
            done = server.handshake()
            _carry(server, client)
    except ssl.SSLError as error:
        what, _ = explain(error)
        raise ConfigError(
            f"{files.certificate} is of no use with {files.ca}: {what}",
            operation="TLS",
            hint="both must come from the same CA, and its certificate must allow both client and server",
        ) from error
    return server.certificate()


def _carry(source: TlsLayer, target: TlsLayer) -> None:
    data = source.pending()
    target.get_buffer()[: len(data)] = data
    target.received(len(data))


def _names(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """The DNS names in a certificate's subjectAltName."""
    return tuple(value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names) or "nobody (it has no DNS name in subjectAltName)"


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _unreadable(path: Path, error: OSError) -> ConfigError:
    why = os.strerror(error.errno) if error.errno else str(error)
    return ConfigError(f"{path} cannot be read: {why}", operation="TLS", hint="see [tls] in the configuration")
