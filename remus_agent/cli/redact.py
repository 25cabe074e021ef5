"""Takes secrets out of text that leaves a host.

Three nets, each of which would do alone most of the time: what this host's configuration names as secret is removed wherever it
stands, in every text; what looks like a secret is removed by its looks; and of the configuration itself only what it means is
shown, without anything that fence agents are given, and without comments.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from remus_agent import fence_config
from remus_agent.cli.output import as_yaml
from remus_agent.errors import ConfigError

REMOVED: Final = "(removed)"
_SHORTEST: Final = 4
"""Characters of a secret that is looked for everywhere. A shorter one would tear holes into everything, and is left to the other
two nets."""
_LOOKS: Final = (
    re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
    re.compile(r"(?i)(?<=bearer )[^\s\"']+"),
)
_NAMES: Final = r"passw(?:or)?d|passphrase|secret|token|community|credential|api[_-]?key|private[_-]?key"
_PAIR: Final = re.compile(
    rf"(?i)((?:{_NAMES})[\w-]*\\?[\"']?\s*[=:]\s*)"
    r"""(?:\\".*?\\"|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[^\s,;"'\\]+)"""
)
"""A name that speaks of a secret, and its value: between quotes, between quotes inside of JSON, or up to the next space."""


def known_secrets(config: Path) -> frozenset[str]:
    """What the configuration of this host names as secret: what fence agents are given, and the lines of the private key. Also
    of one that the agent would refuse. Of one that is no TOML, what the usual files beside it hold."""
    files = {*config.parent.glob("*.secrets")}
    keys = {*config.parent.glob("*.key"), *config.parent.glob("tls/*.key")}
    found: set[str] = set()
    try:
        data = tomllib.loads(config.read_text(errors="replace"))
    except (OSError, tomllib.TOMLDecodeError):
        data = {}
    for table in _fenced(data):
        options = table.get("options")
        found.update(map(str, options.values()) if isinstance(options, dict) else ())
        if isinstance(table.get("secrets"), str):
            files.add(Path(table["secrets"]))
    tls = data.get("tls")
    if isinstance(tls, dict) and isinstance(tls.get("key"), str):
        keys.add(Path(tls["key"]))
    for path in files:
        found.update(_file_of_secrets(path))
    for path in keys:
        found.update(line.strip() for line in _lines(path) if not line.startswith("-----"))
    return frozenset(secret for secret in found if len(secret) >= _SHORTEST)


def _file_of_secrets(path: Path) -> Iterable[str]:
    try:
        return fence_config.read_secrets(path).values()
    except ConfigError:  # others may read it, or a line of it is wrong: it is secret all the same
        return [line.partition("=")[2].strip() or line.strip() for line in _lines(path)]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _fenced(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    fencing = data.get("fencing")
    for table in fencing.values() if isinstance(fencing, dict) else ():
        if isinstance(table, dict):
            yield table


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text without these secrets, and without what looks like one."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, REMOVED)
    for looks in _LOOKS:
        text = looks.sub(REMOVED, text)
    return _PAIR.sub(lambda found: found[1] + REMOVED, text)


def configuration(text: str) -> str:
    """What a configuration of the agent says, as YAML, without what fence agents are given. Of one that is no TOML only the names
    of sections."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        sections = re.findall(r"^\s*(\[+[\w. \"-]+\]+)", text, re.MULTILINE)
        return "\n".join([f"no TOML: {error}", *sections, ""])
    for table in _fenced(data):
        if "options" in table:
            options = table["options"]
            table["options"] = dict.fromkeys(options, REMOVED) if isinstance(options, dict) else REMOVED
    if "fencing" in data and not isinstance(data["fencing"], dict):
        data["fencing"] = REMOVED
    return as_yaml(_plain(data)) + "\n"


def _plain(value: object) -> object:
    """TOML has dates, which JSON has not."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | float) else str(value)
