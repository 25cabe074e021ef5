"""What must be true of a configuration as a whole, which no single key can show."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import fields
from typing import TYPE_CHECKING, Final

from remus_agent.errors import ConfigError
from remus_agent.protocol.limits import MAX_INTERVAL_MS, MAX_OUTPUT_BYTES, MIN_OUTPUT_BYTES

if TYPE_CHECKING:
    from remus_agent.addresses import Address
    from remus_agent.config import Config, Replication, Witness

MAX_SECONDS: Final = 86400.0
RESTART_SECONDS: Final = 60 + 30 + 1
"""Within which systemd has killed an agent that hangs and starts it again: WatchdogSec, TimeoutStopSec (so long it waits after
SIGABRT) and RestartSec of its unit."""
MIN_WATCHDOG: Final = 180
"""Two thirds of it are left at any moment: RESTART_SECONDS, and half a minute in which the new agent reads what it finds."""
WATCHDOG_TO_DETECT: Final = 6
"""The same two thirds are four times the silence after which the backup asks to take over."""


def check(config: Config) -> None:
    """Raises ConfigError, which names the keys and what is allowed."""
    for item in fields(config.timeouts):
        seconds = getattr(config.timeouts, item.name)
        if not (math.isfinite(seconds) and 0 < seconds <= MAX_SECONDS):
            raise ConfigError(
                f"timeouts.{item.name} is {seconds}; it must be above 0 and at most {MAX_SECONDS:.0f} seconds"
            )
    if config.timeouts.heartbeat * 2 > config.timeouts.silence:
        raise ConfigError(
            f"timeouts.silence ({config.timeouts.silence}) must be at least twice timeouts.heartbeat"
            f" ({config.timeouts.heartbeat})",
            hint="otherwise one late heartbeat ends a connection",
        )
    if not MIN_OUTPUT_BYTES <= config.output.limit_bytes <= MAX_OUTPUT_BYTES:
        raise ConfigError(
            f"output.limit_bytes is {config.output.limit_bytes}; it must be at least {MIN_OUTPUT_BYTES}"
            f" and at most {MAX_OUTPUT_BYTES}"
        )
    if not 0 <= config.pacing.interval_ms <= MAX_INTERVAL_MS:
        raise ConfigError(f"pacing.interval_ms is {config.pacing.interval_ms}; it must be from 0 to {MAX_INTERVAL_MS}")
    _check_addresses(config.host.name, config.replication)
    _check_http(config)
    _check_watchdog(config)
    if config.witness is not None:
        _check_witnessed(config, config.witness)


def _check_watchdog(config: Config) -> None:
    seconds = config.watchdog.seconds
    if seconds == 0:
        return
    least = max(MIN_WATCHDOG, math.ceil(WATCHDOG_TO_DETECT * config.timeouts.detect))
    if not least <= seconds <= MAX_SECONDS:
        raise ConfigError(
            f"watchdog.seconds is {seconds}; it must be 0 (off), or at least {least} and at most {MAX_SECONDS:.0f}",
            hint="it resets the host with every guest: an agent that hangs must be restarted by systemd first"
            f" ({RESTART_SECONDS} s and its start), and a host that is only slow be borne for longer than timeouts.detect"
            f" ({config.timeouts.detect:g} s)",
        )
    if config.witness is None:
        raise ConfigError(
            "watchdog.seconds needs [witness]",
            hint="it is armed only while the witness's record names this host; without one it never would be",
        )


def _check_http(config: Config) -> None:
    """Nothing listens beyond what is needed: one address, which somebody has chosen."""
    if config.http is None:
        return
    listen = config.http.listen
    if listen.unspecified or ipaddress.ip_address(listen.ip).is_multicast:
        raise ConfigError(
            f"http.listen: {listen} is not the address of one host",
            hint="name this host's address on the management network; the endpoint asks nobody who he is",
        )
    for key, taken in (
        ("replication.listen", config.replication.listen),
        ("replication.second", config.replication.second),
    ):
        if listen == taken:
            raise ConfigError(f"http.listen has the same address as {key}", hint="give it a port of its own")


def _check_addresses(host: str, replication: Replication) -> None:
    seen: dict[Address, str] = {replication.listen: "replication.listen"}
    if replication.second is not None:
        _unseen(seen, "replication.second", replication.second)
    for key, table in (("peers", replication.peers), ("second_paths", replication.second_paths)):
        for name, address in table.items():
            if name == host:
                raise ConfigError(f"replication.{key} has this host itself ({name})", hint="list only the others")
            if address.unspecified:
                raise ConfigError(f"replication.{key}.{name}: {address} is not the address of one host")
            _unseen(seen, f"replication.{key}.{name}", address)
    for name in replication.second_paths:
        if name not in replication.peers:
            raise ConfigError(
                f"replication.second_paths.{name} is of no peer", hint="name it in [replication.peers] as well"
            )


def _unseen(seen: dict[Address, str], key: str, address: Address) -> None:
    if address in seen:
        raise ConfigError(f"{key} has the same address as {seen[address]}")
    seen[address] = key


def _check_witnessed(config: Config, witness: Witness) -> None:
    """Without a witness these numbers are used by nobody."""
    if config.tls is None:
        raise ConfigError("[witness] needs [tls]", hint="whoever may write the record decides who runs a guest")
    if not (math.isfinite(witness.timeout) and 0 < witness.timeout <= MAX_SECONDS):
        raise ConfigError(
            f"witness.timeout is {witness.timeout}; it must be above 0 and at most {MAX_SECONDS:.0f} seconds"
        )
    times = config.timeouts
    if times.detect < 3 * times.heartbeat:
        raise ConfigError(
            f"timeouts.detect ({times.detect}) must be at least three times timeouts.heartbeat ({times.heartbeat})",
            hint="otherwise a late heartbeat looks like a dead host",
        )
    if times.solo < 2 * times.detect:
        raise ConfigError(
            f"timeouts.solo ({times.solo}) must be at least twice timeouts.detect ({times.detect})",
            hint="a backup that lives shall win over a primary that is cut off",
        )
    lacking = sorted(set(config.replication.peers) - set(config.replication.second_paths))
    if config.automatic.failover and (lacking or config.replication.second is None):
        raise ConfigError(
            f"automatic failover needs a second path to {', '.join(lacking) or 'this host'}",
            hint="set replication.second and [replication.second_paths], or failover = false in [automatic]",
        )
