"""One request to the JSON gateway of one etcd endpoint, over a TLS connection of its own.

A connection that is kept could have been closed by the other side just before a request, whose fate would be unknown then; and a
new one reads the host's certificate anew. Requests are rare: roles change seldom.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError

_LARGEST: Final = 64 * 1024
"""Bytes of an answer; ours have some hundred."""


@dataclass(frozen=True, slots=True)
class EtcdAccess:
    """How etcd is reached. endpoints: `https://ADDRESS:PORT` of each of its nodes. ca: certificates of those who may have signed
    theirs. certificate, key: of this host, for etcd. timeout: seconds to connect, and as many for an answer."""

    endpoints: tuple[str, ...]
    ca: Path
    certificate: Path
    key: Path
    timeout: float = 5.0


class NotAsked(Exception):
    """The request was not taken in, for sure. The text says why."""


class NoAnswer(Exception):
    """The request may have been taken in. The text says what came instead of an answer."""


def post(access: EtcdAccess, url: str, payload: bytes) -> bytes:
    """The body of the answer. Blocks. Raises NotAsked, NoAnswer."""
    try:
        context = ssl.create_default_context(cafile=str(access.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(access.certificate, access.key)
    except (OSError, ssl.SSLError) as error:
        raise NotAsked(f"{access.ca}, {access.certificate} or {access.key} cannot be used: {error}") from error
    timeout = urllib3.Timeout(connect=access.timeout, read=access.timeout)
    with urllib3.PoolManager(ssl_context=context, timeout=timeout, retries=False) as pool:
        try:
            response = pool.request(
                "POST", url, body=payload, headers={"Content-Type": "application/json"}, redirect=False,
                preload_content=False,
            )  # fmt: skip
            body = response.read(_LARGEST)
        except (NewConnectionError, ConnectTimeoutError) as error:
            raise NotAsked(f"no connection: {_short(error)}") from error
        except SSLError as error:
            if _about_certificates(error):
                raise NotAsked(f"TLS: {_short(error)}") from error
            raise NoAnswer(f"TLS: {_short(error)}") from error
        except HTTPError as error:
            raise NoAnswer(_short(error)) from error
    if response.status in (401, 403):
        raise NotAsked(f"it does not permit this host's certificate to do that (status {response.status})")
    if response.status != 200:
        raise NoAnswer(f"status {response.status}: {body[:200].decode(errors='replace')}")
    return body


def _about_certificates(error: SSLError) -> bool:
    """Whether one side has not accepted the other's certificate. With TLS 1.3 the server says so only after the request was sent,
    but takes nothing in before it has checked."""
    cause = error.args[0] if error.args else None
    if isinstance(cause, ssl.SSLCertVerificationError | ssl.CertificateError):
        return True
    reason = getattr(cause, "reason", None) or ""
    return "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)


def _short(error: Exception) -> str:
    """urllib3's texts name the connection object first."""
    text = str(error)
    return text.rpartition(">: ")[2] or text or type(error).__name__
