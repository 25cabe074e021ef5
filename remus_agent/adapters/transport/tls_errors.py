"""What OpenSSL reports, in words of the two hosts: what is wrong, and what to do next."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Final

_SAME_CA: Final = (
    "install certificates of one CA on both hosts; while a CA is replaced, each must trust the old and the new"
)
_RENEW_THERE: Final = (
    "renew the certificate of that host (playbooks/site.yml does); `remusctl agent` there shows its days left"
)
_RENEW_HERE: Final = (
    "renew the certificate of this host (playbooks/site.yml does); `remusctl agent` shows its days left"
)
_CLOCKS: Final = "compare the clocks of both hosts"
_FOREIGN: Final = ("its certificate is not of the CA that this host trusts", _SAME_CA)

_VERIFY: Final[Mapping[int, tuple[str, str]]] = {
    2: _FOREIGN,
    7: _FOREIGN,  # a CA of the same name with another key
    9: ("its certificate is not valid yet", _CLOCKS),
    10: ("its certificate, or that of the CA, has expired", _RENEW_THERE),
    18: _FOREIGN,
    19: _FOREIGN,
    20: _FOREIGN,
    21: _FOREIGN,
    26: ("its certificate does not allow this use", "it must allow both client and server (extendedKeyUsage)"),
}
"""By X509_V_ERR_*."""

_NOT_OURS: Final = ("it does not trust the CA of this host's certificate", _SAME_CA)
_NO_TLS: Final = ("the other side does not speak TLS", "add the section [tls] to the configuration of its agent too")
_OLD: Final = ("the other side cannot do TLS 1.3", "TLS 1.2 and older are refused; look at what connects from there")

_REASONS: Final[Mapping[str, tuple[str, str]]] = {
    "TLSV1_ALERT_UNKNOWN_CA": _NOT_OURS,
    "TLSV1_ALERT_DECRYPT_ERROR": _NOT_OURS,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": ("it says that this host's certificate has expired", _RENEW_HERE),
    "SSLV3_ALERT_BAD_CERTIFICATE": ("it refuses this host's certificate, which may not be valid there yet", _CLOCKS),
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": ("it refuses this host's certificate", "look at the log of the agent there"),
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": ("it refuses this host's certificate for this use", _RENEW_HERE),
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": ("it demands a certificate", "see [tls] in the configuration of this host"),
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": ("it has shown no certificate", "look at what connects from there"),
    "TLSV1_ALERT_PROTOCOL_VERSION": _OLD,
    "UNSUPPORTED_PROTOCOL": _OLD,
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "UNEXPECTED_EOF_WHILE_READING": (
        "it ended the connection in the middle of TLS",
        "look at the log of the agent there",
    ),
}
"""By OpenSSL's name of the reason."""


def explain(error: ssl.SSLError) -> tuple[str, str | None]:
    """What is wrong, and the next step where one is known."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY.get(error.verify_code, (f"its certificate is refused: {error.verify_message}", None))
    reason = error.reason or str(error)
    return _REASONS.get(reason, (reason.lower().replace("_", " "), None))
