"""The sections [fencing.NAME] of the agent's configuration: how the peer NAME is switched off.

[fencing.beta]
agent = "fence_ipmilan"                     below /usr/sbin, or an absolute path
secrets = "/etc/remus/fence-beta.secrets"   key=value lines, readable by its owner only
required = false                            nothing of beta is activated here before it was fenced
timeout = 60                                seconds for one run of the agent, and as long again to see the host off
[fencing.beta.options]
ip = "beta-ipmi.example.net"                text, given to the agent as it stands
"""

from __future__ import annotations

import difflib
import math
import os
import re
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from remus_agent.errors import ConfigError

AGENTS: Final = Path("/usr/sbin")
TIMEOUT: Final = 60.0
MAX_TIMEOUT: Final = 3600.0
MAX_SECRETS_BYTES: Final = 65536
_AGENT: Final = re.compile(r"fence_[A-Za-z0-9_-]{1,60}")
_OPTION: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_OURS: Final = frozenset({"action", "option", "nodename"})
"""What the caller of an agent sets itself; `option` is the old name of `action`."""


@dataclass(frozen=True, slots=True)
class FenceAgent:
    """How one host is fenced. agent: the program. options, and those of the file secrets: what it is given. required: nothing of
    this host is activated elsewhere before it was fenced. timeout: seconds for one run, and as long again to see it off."""

    agent: Path
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    secrets: Path | None = None
    required: bool = False
    timeout: float = TIMEOUT


def parse(section: object, peers: Collection[str]) -> Mapping[str, FenceAgent]:
    """Check the section `fencing` of a configuration file. peers: hosts that may be fenced. Raises ConfigError."""
    if not isinstance(section, dict):
        raise ConfigError("fencing must be sections", hint="write [fencing.NAME] for each peer that can be fenced")
    found = {}
    for host, table in section.items():
        if host not in peers:
            raise ConfigError(
                f"fencing.{host}: there is no such peer; there is {', '.join(sorted(peers)) or 'none'}",
                hint="name a host of [replication.peers]",
            )
        found[host] = _agent(f"fencing.{host}", table)
    return MappingProxyType(found)


def check_secrets(agents: Mapping[str, FenceAgent]) -> None:
    """See that every file of secrets can be used. Raises ConfigError."""
    for host, agent in agents.items():
        try:
            read_secrets(agent.secrets)
        except ConfigError as error:
            raise ConfigError(f"fencing.{host}.secrets: {error.message}", hint=error.hint) from error


def read_secrets(path: Path | None) -> dict[str, str]:
    """The options in a file of secrets: key=value lines, and lines that are empty or begin with #. None: there are none. Raises
    ConfigError, also when others may read or change the file; never with anything of its content."""
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            _refuse_open(path, facts)
            text = file.read(MAX_SECRETS_BYTES + 1).decode()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="make it, with mode 0600") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    if len(text) > MAX_SECRETS_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_SECRETS_BYTES} bytes")
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals or _OPTION.fullmatch(key) is None:
            raise ConfigError(
                f"{path}, line {number}: not key=value", hint="one option a line, without spaces around ="
            )
        if key in _OURS or key in found:
            raise ConfigError(
                f"{path}, line {number}: {key} {'is there twice' if key in found else 'is set by the agent'}"
            )
        if not value.isprintable():
            raise ConfigError(f"{path}, line {number}: {key} has a character that cannot be printed")
        found[key] = value
    return found


def _refuse_open(path: Path, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise ConfigError(f"{path} is no regular file")
    if facts.st_mode & 0o077:
        raise ConfigError(
            f"{path} may be read or changed by others (mode {stat.S_IMODE(facts.st_mode):04o})",
            hint=f"chmod 0600 {path}",
        )
    if facts.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"{path} belongs to user {facts.st_uid}", hint=f"chown root {path}")


def _agent(where: str, table: object) -> FenceAgent:
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a section", hint=f"write [{where}] on a line of its own")
    known = sorted(item.name for item in fields(FenceAgent))
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            raise ConfigError(
                f"[{where}] has no key {key!r}; allowed: {', '.join(known)}",
                hint=f"did you mean {close[0]!r}?" if close else f"options of the agent belong into [{where}.options]",
            )
    required = table.get("required", False)
    if type(required) is not bool:
        raise ConfigError(f"{where}.required must be true or false, not {required!r}")
    return FenceAgent(
        _program(where, table.get("agent")),
        _options(where, table.get("options", {})),
        _file(where, table.get("secrets")),
        required,
        _seconds(where, table.get("timeout", TIMEOUT)),
    )


def _program(where: str, value: Any) -> Path:
    if value is None:
        raise ConfigError(f"{where}.agent is missing", hint='name a fence agent, "fence_ipmilan" for one')
    if isinstance(value, str) and _AGENT.fullmatch(value):
        return AGENTS / value
    if isinstance(value, str) and value.startswith("/") and value.isprintable():
        return Path(value)
    raise ConfigError(
        f"{where}.agent: {value!r} is no fence agent", hint=f"a name like fence_ipmilan ({AGENTS}), or an absolute path"
    )


def _options(where: str, table: Any) -> Mapping[str, str]:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}.options must be a table", hint=f"write [{where}.options] on a line of its own")
    for key, value in table.items():
        name = f"{where}.options.{key}"
        if _OPTION.fullmatch(key) is None:
            raise ConfigError(f"{name}: not the name of an option")
        if key in _OURS:
            raise ConfigError(f"{name} is set by remus-agent", hint="leave it out")
        if "passw" in key and "script" not in key:
            raise ConfigError(f"{name}: a password does not belong here", hint=f"put it into the file {where}.secrets")
        if not isinstance(value, str):
            raise ConfigError(f"{name} must be text, not {value!r}", hint=f'write {key} = "{value}"')
        if not value.isprintable():
            raise ConfigError(f"{name} has a character that cannot be printed")
    return MappingProxyType(dict(table))


def _file(where: str, value: Any) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.startswith("/"):
        raise ConfigError(f"{where}.secrets must be an absolute path, not {value!r}", hint="start it with /")
    return Path(value)


def _seconds(where: str, value: Any) -> float:
    if type(value) not in (int, float) or not (math.isfinite(value) and 0 < value <= MAX_TIMEOUT):
        raise ConfigError(f"{where}.timeout is {value!r}; it must be above 0 and at most {MAX_TIMEOUT:.0f} seconds")
    return float(value)
