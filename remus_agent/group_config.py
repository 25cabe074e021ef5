"""The sections `[groups.NAME]` of the agent's configuration: guests that are protected together.

[groups.shop]
members = ["app1", "db1"]
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from remus_agent.errors import ConfigError
from remus_agent.protocol.groups import MAX_MEMBERS, MIN_MEMBERS, Groups

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+:@=-]{0,47}")
"""As guests are called, and short enough for what the copy of a member is called."""
_MARKS: Final = ("--of-", "--incoming-")
"""What names of copies are made with."""
_HINT: Final = 'write [groups.NAME] and in it members = ["GUEST", "GUEST"]'


def parse(sections: object) -> Groups:
    """Check all of them. Raises ConfigError."""
    if not isinstance(sections, dict):
        raise ConfigError("groups must be sections", hint=_HINT)
    groups = {name: _members(name, section) for name, section in sections.items()}
    seen: dict[str, str] = {}
    for name, members in groups.items():
        for member in members:
            if member in groups:
                raise ConfigError(
                    f"groups.{name}: {member} is the name of a group",
                    hint="a group consists of guests, and has a name of its own",
                )
            if seen.setdefault(member, name) != name:
                raise ConfigError(
                    f"groups.{name}: {member} is a member of {seen[member]} as well", hint="leave it in one of the two"
                )
    return Groups(groups)


def of_file(path: Path) -> Groups:
    """The groups of an agent's configuration, for who needs nothing else of it; none where there is no such file. Raises
    ConfigError."""
    try:
        data = tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        return Groups()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return parse(data.get("groups", {}))


def check_disks(groups: Groups, owners: Iterable[str]) -> None:
    """owners: guests of the disks of this host. Raises ConfigError where a group is called as one of them."""
    for name in sorted({*owners} & {*groups}):
        raise ConfigError(
            f"groups.{name}: {name} is a guest, whose disks this host knows", hint="a group has a name of its own"
        )


def _members(name: str, section: object) -> tuple[str, ...]:
    _check_name(f"groups.{name}", name)
    if not isinstance(section, dict) or set(section) != {"members"}:
        raise ConfigError(f"groups.{name} has members and nothing else", hint=_HINT)
    members = section["members"]
    if not isinstance(members, list) or not all(isinstance(member, str) for member in members):
        raise ConfigError(f"groups.{name}.members must be names of guests", hint=_HINT)
    for member in members:
        _check_name(f"groups.{name}.members", member)
    if not MIN_MEMBERS <= len(members) <= MAX_MEMBERS:
        raise ConfigError(f"groups.{name} has {len(members)} members; {MIN_MEMBERS} to {MAX_MEMBERS} are possible")
    if len(set(members)) != len(members):
        raise ConfigError(f"groups.{name} names a member twice")
    return tuple(members)


def _check_name(key: str, name: str) -> None:
    if _NAME.fullmatch(name) is None or any(mark in name for mark in _MARKS):
        raise ConfigError(
            f"{key}: {name!r} cannot be the name of a group or of its member",
            hint="start with a letter, a digit or an underscore and use at most 48 letters, digits and _.+:@=-, "
            f"without {' and '.join(_MARKS)}",
        )
