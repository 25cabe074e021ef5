"""The agent's configuration file, `/etc/remus/agent.toml`: strict, so that a misspelt key is an error and not
a default.

    [host]         name
    [replication]  listen second               [replication.peers]         NAME = "ADDRESS:PORT"
                                               [replication.second_paths]  NAME = "ADDRESS:PORT"
    [timeouts]     connect suspend ack silence heartbeat activate detect solo retry      (seconds, above 0)
    [witness]      endpoints timeout           (without the section: roles change on an operator's word alone)
    [automatic]    failover solo reprotect
    [output]       limit_bytes
    [pacing]       interval_ms
    [paths]        state run
    [tls]          ca certificate key                              (absolute paths; without the section: plain TCP)
    [fencing.NAME]                                                 (see `fence_config`)
    [watchdog]     seconds                     (0: off; needs [witness])
    [http]         listen                      (metrics and health; without the section: nothing listens)
    [groups.NAME]  members                     (names of guests that are protected together, see `protocol.groups`)
"""

from __future__ import annotations

import difflib
import re
import socket
import tomllib
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from remus_agent import fence_config, group_config
from remus_agent.addresses import Address, parse_address
from remus_agent.config_rules import check
from remus_agent.errors import ConfigError
from remus_agent.fence_config import FenceAgent
from remus_agent.protocol.groups import Groups

DEFAULT_PATH: Final = Path("/etc/remus/agent.toml")
_NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Host:
    """This host. name: as its peers call it."""

    name: str


@dataclass(frozen=True, slots=True)
class Replication:
    """Where this agent listens for replication, and the agents it may replicate with. second, second_paths: the same over another
    network, for heartbeats alone."""

    listen: Address
    peers: Mapping[str, Address]
    second: Address | None = None
    second_paths: Mapping[str, Address] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def peer_ips(self) -> frozenset[str]:
        """Addresses from which connections are accepted."""
        return frozenset(address.ip for address in self.peers.values())

    @property
    def second_ips(self) -> frozenset[str]:
        """Addresses from which heartbeats are accepted."""
        return frozenset(address.ip for address in self.second_paths.values())


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Durations in seconds. connect: to reach a peer. suspend: for a guest to suspend. ack: for a memory
    acknowledgement. silence: without any frame before a connection counts as ended. heartbeat: between
    heartbeats. activate: for the toolstack to finish a domain. retry: between attempts to find a lost backup. With a witness:
    detect: silence on both paths after which a backup asks to take over. solo: without an acknowledgement, after which a
    primary asks to run on alone."""

    connect: float = 10.0
    suspend: float = 10.0
    ack: float = 60.0
    silence: float = 30.0
    heartbeat: float = 2.0
    activate: float = 120.0
    retry: float = 5.0
    detect: float = 10.0
    solo: float = 60.0


@dataclass(frozen=True, slots=True)
class Witness:
    """An etcd cluster that records who owns which guest. endpoints: `https://HOST:PORT` of each of its nodes. timeout: seconds to
    connect, and as many for an answer. It is shown the certificates of [tls]."""

    endpoints: tuple[str, ...]
    timeout: float = 5.0


@dataclass(frozen=True, slots=True)
class Automatic:
    """What an agent with a witness does by itself. failover: take over from a primary that is silent. solo: run on without a
    backup that is silent. reprotect: replicate to the old primary as soon as it answers again."""

    failover: bool = True
    solo: bool = True
    reprotect: bool = True


@dataclass(frozen=True, slots=True)
class Output:
    """limit_bytes: how much held output a guest's interface may have before frames are dropped."""

    limit_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pacing:
    """interval_ms: how long the guest runs at least between two checkpoints; 0 is as fast as it goes, which can take all of
    a small dom0."""

    interval_ms: int = 100


@dataclass(frozen=True, slots=True)
class Paths:
    """state: what must outlive a restart. run: sockets."""

    state: Path = Path("/var/lib/remus")
    run: Path = Path("/run/remus")

    @property
    def guests(self) -> Path:
        """Directory of the protections that must outlive a restart."""
        return self.state / "guests"

    @property
    def journal(self) -> Path:
        """Directory of the commit journals."""
        return self.state / "journal"

    @property
    def events(self) -> Path:
        """File of the events."""
        return self.state / "events.jsonl"

    @property
    def agent_socket(self) -> Path:
        """The control socket."""
        return self.run / "agent.sock"

    @property
    def supervisor_socket(self) -> Path:
        """The supervisor's socket."""
        return self.run / "supervisor.sock"


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM. ca: certificates of the CAs whose peers are trusted, several while one is replaced. certificate, key: of
    this host, with host.name as DNS name in subjectAltName."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Watchdog:
    """seconds: after which Xen resets this host, with all its guests, when the agent of a host that holds authority does not come
    back. 0: never."""

    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Http:
    """listen: where metrics and health are served, an address of this host's management network."""

    listen: Address


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file, checked."""

    host: Host
    replication: Replication
    timeouts: Timeouts = field(default_factory=Timeouts)
    output: Output = field(default_factory=Output)
    pacing: Pacing = field(default_factory=Pacing)
    paths: Paths = field(default_factory=Paths)
    tls: Tls | None = None
    witness: Witness | None = None
    automatic: Automatic = field(default_factory=Automatic)
    watchdog: Watchdog = field(default_factory=Watchdog)
    fencing: Mapping[str, FenceAgent] = field(default_factory=lambda: MappingProxyType({}))
    """By the name of the peer that is switched off."""
    http: Http | None = None
    groups: Groups = field(default_factory=Groups)


_SECTIONS: Final[Mapping[str, type[Any]]] = MappingProxyType(
    {
        "host": Host,
        "replication": Replication,
        "timeouts": Timeouts,
        "output": Output,
        "pacing": Pacing,
        "paths": Paths,
        "tls": Tls,
        "witness": Witness,
        "automatic": Automatic,
        "watchdog": Watchdog,
        "http": Http,
    }
)


def load(path: Path) -> Config:
    """Read and check a configuration file. Raises ConfigError, which names the file, the key and what is
    allowed."""
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist", hint="see the example in docs/operations.md") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text") from error
    try:
        config = parse(text)
        fence_config.check_secrets(config.fencing)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from error
    return config


def check_own(config: Config) -> None:
    """Whether http.listen is an address of the host that this runs on. Not part of `load`: a management network that is away must
    not keep an agent from looking after its guests. Raises ConfigError."""
    if config.http is None:
        return
    address = config.http.listen
    with socket.socket(socket.AF_INET6 if ":" in address.ip else socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address.ip, 0))  # any port: the agent may be listening on its own
        except OSError as error:
            raise ConfigError(
                f"http.listen: {address.ip} is not an address of this host ({error.strerror})",
                hint="name its address on the management network; see `ip -brief address`",
            ) from None


def parse(text: str) -> Config:
    """Check the text of a configuration file. Raises ConfigError."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}") from error
    _known("the file", data, (*_SECTIONS, "fencing", "groups"), "section")
    fencing, groups = data.pop("fencing", {}), data.pop("groups", {})
    for name, section in data.items():
        if not isinstance(section, dict):
            raise ConfigError(f"{name} must be a section", hint=f"write [{name}] on a line of its own")
        _known(f"[{name}]", section, (item.name for item in fields(_SECTIONS[name])), "key")
    for name, key in (("host", "name"), ("replication", "listen")):
        if key not in data.get(name, {}):
            raise ConfigError(f"{name}.{key} is missing", hint=f"set {key} in section [{name}]")
    replication = _replication(data["replication"])
    config = Config(
        host=Host(_text("host.name", data["host"]["name"])),
        replication=replication,
        timeouts=_convert("timeouts", data.get("timeouts", {}), Timeouts),
        output=_convert("output", data.get("output", {}), Output),
        pacing=_convert("pacing", data.get("pacing", {}), Pacing),
        paths=Paths(**_files("paths", data.get("paths", {}))),
        tls=_tls(data["tls"]) if "tls" in data else None,
        witness=_witness(data["witness"]) if "witness" in data else None,
        automatic=_convert("automatic", data.get("automatic", {}), Automatic),
        watchdog=_convert("watchdog", data.get("watchdog", {}), Watchdog),
        fencing=fence_config.parse(fencing, replication.peers),
        http=_http(data["http"]) if "http" in data else None,
        groups=group_config.parse(groups),
    )
    check(config)
    return config


def _known(where: str, table: Iterable[str], allowed: Iterable[str], what: str) -> None:
    names = sorted(allowed)
    for key in table:
        if key not in names:
            close = difflib.get_close_matches(key, names, 1)
            raise ConfigError(
                f"{where} has no {what} {key!r}; allowed: {', '.join(names)}",
                hint=f"did you mean {close[0]!r}?" if close else None,
            )


def _convert(key: str, value: object, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        inner = str(error).partition(" - at `$")
        suffix = inner[2].rstrip("`").replace("[...]", "") if inner[1] else ""
        text = inner[0][:1].lower() + inner[0][1:]
        for name, word in (("`str`", "text"), ("`int`", "a whole number"), ("`float`", "a number")):
            text = text.replace(name, word)
        raise ConfigError(f"{key}{suffix}: {text}") from None


def _text(key: str, value: object) -> str:
    text: str = _convert(key, value, str)
    if _NAME_PATTERN.fullmatch(text) is None:
        raise ConfigError(
            f"{key}: {text!r} is not a host name",
            hint="start with a letter or digit and use letters, digits, dots, dashes and underscores",
        )
    return text


def _address(key: str, value: object) -> Address:
    try:
        return parse_address(_convert(key, value, str))
    except ConfigError as error:
        message = error.message if error.message.startswith(key) else f"{key}: {error.message}"
        raise ConfigError(message, hint=error.hint) from None


def _replication(table: dict[str, object]) -> Replication:
    return Replication(
        _address("replication.listen", table["listen"]),
        _addresses("replication.peers", table.get("peers", {})),
        _address("replication.second", table["second"]) if "second" in table else None,
        _addresses("replication.second_paths", table.get("second_paths", {})),
    )


def _addresses(key: str, table: object) -> Mapping[str, Address]:
    if not isinstance(table, dict):
        raise ConfigError(f"{key} must be a section", hint='write NAME = "ADDRESS:PORT" lines in it')
    found = {}
    for name, value in table.items():
        _text(f"a name in {key}", name)
        found[name] = _address(f"{key}.{name}", value)
    return MappingProxyType(found)


def _witness(table: dict[str, object]) -> Witness:
    if not table.get("endpoints"):
        raise ConfigError(
            "witness.endpoints is missing", hint='write endpoints = ["https://ADDRESS:2379"] with every node of etcd'
        )
    found: Witness = _convert("witness", table, Witness)
    for endpoint in found.endpoints:
        where = urllib.parse.urlsplit(endpoint)
        try:
            right = where.scheme == "https" and where.hostname and where.port and where.path in ("", "/")
        except ValueError:
            right = False
        if not right or where.query or where.fragment or where.username:
            raise ConfigError(f"witness.endpoints: {endpoint!r} is not https://HOST:PORT")
    endpoints = tuple(endpoint.rstrip("/") for endpoint in found.endpoints)
    if len(set(endpoints)) != len(endpoints):
        raise ConfigError("witness.endpoints names a node twice")
    return Witness(endpoints, found.timeout)


def _http(table: dict[str, object]) -> Http:
    if "listen" not in table:
        raise ConfigError(
            "http.listen is missing", hint='write listen = "ADDRESS:PORT", or leave out the section [http]'
        )
    return Http(_address("http.listen", table["listen"]))


def _files(section: str, table: dict[str, object]) -> dict[str, Path]:
    found = {key: Path(_convert(f"{section}.{key}", value, str)) for key, value in table.items()}
    for key, path in found.items():
        if not path.is_absolute():
            raise ConfigError(f"{section}.{key} must be an absolute path", hint="start it with /")
    return found


def _tls(table: dict[str, object]) -> Tls:
    for item in fields(Tls):
        if item.name not in table:
            raise ConfigError(f"tls.{item.name} is missing", hint="[tls] needs ca, certificate and key")
    return Tls(**_files("tls", table))
