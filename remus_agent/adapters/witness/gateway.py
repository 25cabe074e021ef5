"""One request to the JSON gateway of one etcd endpoint, over a TLS connection of its own or one that was opened just before.

A connection that is kept for long could have been closed by the other side just before a request, whose fate would be unknown
then; and a new one reads the host's certificate anew. Requests are rare: roles change seldom.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.parse
from dataclasses import dataclass
from typing import Final

from remus_agent.config import Tls

_LARGEST: Final = 64 * 1024
"""Bytes of an answer; ours have some hundred."""


@dataclass(frozen=True, slots=True)
class EtcdAccess:
    """How etcd is reached. endpoints: `https://ADDRESS:PORT` of each of its nodes. files: certificates of those who may have
    signed theirs, and this host's own. timeout: seconds to connect, and as many for an answer."""

    endpoints: tuple[str, ...]
    files: Tls
    timeout: float = 5.0


class NotAsked(Exception):
    """The request was not taken in, for sure. The text says why."""


class NoAnswer(Exception):
    """The request may have been taken in. The text says what came instead of an answer."""


class NoSpace(Exception):
    """The request has ended with the word that the database is full. A request that made it so was carried out all the same, any
    other one never will be: the record tells which. The text is the answer."""


_TOO_MANY: Final = b"etcdserver: too many requests"
"""Said before anything is proposed to the cluster."""
_FULL: Final = b"etcdserver: mvcc: database space exceeded"
"""Said before anything is proposed, or when it is applied: also of the request that has used the last space, which is kept."""


def connected(access: EtcdAccess, endpoint: str) -> http.client.HTTPSConnection:
    """A connection to one endpoint after its handshake. Blocks. Raises NotAsked."""
    where, files = urllib.parse.urlsplit(endpoint), access.files
    try:
        context = ssl.create_default_context(cafile=str(files.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(files.certificate, files.key)
    except OSError as error:
        raise NotAsked(f"{files.ca}, {files.certificate} or {files.key} cannot be used: {error}") from error
    connection = http.client.HTTPSConnection(where.hostname or "", where.port, timeout=access.timeout, context=context)
    try:
        connection.connect()
    except OSError as error:
        connection.close()
        raise NotAsked(f"no connection: {error}") from error
    return connection


def post(connection: http.client.HTTPSConnection, path: str, payload: bytes) -> bytes:
    """The body of the answer. Blocks. The connection can be used for another request when this returns, and is closed when it
    does not. Raises NotAsked, NoSpace, NoAnswer."""
    try:
        return judged(*_answered(connection, path, payload))
    except (NotAsked, NoSpace, NoAnswer):
        connection.close()
        raise


def _answered(connection: http.client.HTTPSConnection, path: str, payload: bytes) -> tuple[int, bytes]:
    """Status and body. Raises NotAsked, NoAnswer."""
    try:
        connection.request("POST", path, body=payload, headers={"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read(_LARGEST)
    except (OSError, http.client.HTTPException) as error:
        if _about_certificates(error):
            raise NotAsked(f"TLS: {error}") from error
        raise NoAnswer(str(error) or type(error).__name__) from error
    if not response.isclosed():
        connection.close()  # what is left of it would be taken for the next answer
    return response.status, body


def judged(status: int, body: bytes) -> bytes:
    """The body of an answer that says what was asked for. Raises as `post` does."""
    if status == 200:
        return body
    if status in (401, 403):
        raise NotAsked(f"it does not permit this host's certificate to do that (status {status})")
    said = f"status {status}: {body[:200].decode(errors='replace')}"
    if status == http.HTTPStatus.TOO_MANY_REQUESTS and _TOO_MANY in body:
        raise NotAsked(said)
    if status == http.HTTPStatus.TOO_MANY_REQUESTS and _FULL in body:
        raise NoSpace(said)
    raise NoAnswer(said)


def _about_certificates(error: Exception) -> bool:
    """Whether the server has not accepted this host's certificate. With TLS 1.3 it says so only after the request was sent, but
    takes nothing in before it has checked."""
    reason = (isinstance(error, ssl.SSLError) and error.reason) or ""
    return "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)
