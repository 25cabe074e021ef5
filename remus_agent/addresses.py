"""Addresses as a configuration file has them: IP addresses with a port, never names."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from remus_agent.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address and a TCP port. str() gives `10.0.0.1:7789` or `[fd00::1]:7789`."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"

    @property
    def unspecified(self) -> bool:
        """Whether it stands for all addresses of a host (0.0.0.0, ::)."""
        return ipaddress.ip_address(self.ip).is_unspecified


def parse_address(text: str) -> Address:
    """`ADDRESS:PORT` or `[IPV6]:PORT`. Names are refused: who may replicate must not depend on a name server.

    Raises ConfigError.
    """
    hint = 'write it as "10.0.0.1:7789" or "[fd00::1]:7789"'
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        wanted: int | None = 6
    else:
        wanted = 4
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        raise ConfigError(f"{text!r} is not an IP address with a port", hint=hint) from None
    if not colon or ip.version != wanted or "%" in host:
        raise ConfigError(f"{text!r} is not an IP address with a port", hint=hint)
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ConfigError(f"{text!r} has no port from 1 to 65535", hint=hint)
    return Address(str(ip), int(port))
