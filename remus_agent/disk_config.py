"""The protected disks of a host, `/etc/remus/disks.toml`: one `[[disk]]` for each, the same on both hosts where their devices
have the same names. Strict, so that a misspelt key is an error and not a default.

    [[disk]]
    domain = "db1"                      the domain's name
    vdev = "xvda"                       the disk's name in the guest
    device = "/dev/vg0/db1-xvda"        the local device with the guest's data
    metadata = "/dev/vg0/db1-xvda-md"   8 MiB for md, a device or a file (default: a file in memory, below /run)
    journal = "/dev/vg0/db1-xvda-jn"    where epochs are staged, a device or a file (default: a file below the agent's state)
    journal_bytes = 134217728           of a journal that is a file
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from remus_agent.errors import ConfigError

DEFAULT_PATH: Final = Path("/etc/remus/disks.toml")
MAPPER: Final = Path("/dev/mapper")
METADATA_BYTES: Final = 8 * 1024 * 1024
"""Two legs of 4 MiB, of which dm-raid uses some KiB for a superblock and a bitmap. By default in memory: they are made anew for
each mirror, and for an error on them md lets go of the leg that they describe, also of a device without any fault."""
JOURNAL_BYTES: Final = 128 * 1024 * 1024
MIN_JOURNAL_BYTES: Final = 4 * 1024 * 1024
_DOMAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+:@=-]{0,99}")
_VDEV: Final = re.compile(r"(xvd|hd|sd)[a-z]{1,2}[0-9]{0,3}")


@dataclass(frozen=True, slots=True)
class Disk:
    """One protected disk of this host."""

    domain: str
    vdev: str
    device: Path
    metadata: Path
    journal: Path
    journal_bytes: int = JOURNAL_BYTES

    @property
    def name(self) -> str:
        """Of its mapper device, which the guest's configuration names."""
        return f"remus-{self.domain}-{self.vdev}"

    @property
    def mapper(self) -> Path:
        """Its mapper device, which is there from remus-disks.service on."""
        return MAPPER / self.name


def load(path: Path, state: Path, run: Path) -> tuple[Disk, ...]:
    """Read and check the file; none at all means no disks. state, run: the agent's directories, for what the file does
    not say. Raises ConfigError, which names the file, the key and what is allowed."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        return parse(text, state, run)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from error


def parse(text: str, state: Path, run: Path) -> tuple[Disk, ...]:
    """Check the text of the file. Raises ConfigError."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}") from error
    entries = data.pop("disk", [])
    if data or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError("only [[disk]] sections are allowed", hint="write [[disk]] with two brackets on each side")
    disks = tuple(_disk(number, entry, state, run) for number, entry in enumerate(entries, 1))
    _distinct(disks)
    return disks


def _disk(number: int, entry: dict[str, Any], state: Path, run: Path) -> Disk:
    where = f"disk {number}"
    known = {item.name for item in fields(Disk)}
    for key in entry:
        if key not in known:
            raise ConfigError(f"{where} has no key {key!r}; allowed: {', '.join(sorted(known))}")
    domain = _word(where, entry, "domain", _DOMAIN)
    vdev = _word(where, entry, "vdev", _VDEV)
    where = f"disk {vdev} of {domain}"
    journal_bytes = entry.get("journal_bytes", JOURNAL_BYTES)
    if type(journal_bytes) is not int or journal_bytes < MIN_JOURNAL_BYTES or journal_bytes % 4096:
        raise ConfigError(f"{where}: journal_bytes must be a multiple of 4096 of at least {MIN_JOURNAL_BYTES}")
    return Disk(
        domain,
        vdev,
        _path(where, entry, "device", None),
        _path(where, entry, "metadata", run / "md" / f"{domain}-{vdev}.md"),
        _path(where, entry, "journal", state / "disks" / f"{domain}-{vdev}.journal"),
        journal_bytes,
    )


def _word(where: str, entry: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise ConfigError(f"{where}: {key} must be text like {'xvda' if key == 'vdev' else 'db1'}, not {value!r}")
    return value


def _path(where: str, entry: dict[str, Any], key: str, default: Path | None) -> Path:
    value = entry.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or not value.startswith("/"):
        raise ConfigError(f"{where}: {key} must be an absolute path, not {value!r}")
    if not value.isprintable() or " " in value or "\\" in value:  # device-mapper's tables are words
        raise ConfigError(f"{where}: {key} must be without spaces and backslashes, not {value!r}")
    return Path(value)


def _distinct(disks: tuple[Disk, ...]) -> None:
    names: set[tuple[str, str]] = set()
    paths: dict[Path, str] = {}
    for disk in disks:
        if (disk.domain, disk.vdev) in names:
            raise ConfigError(f"disk {disk.vdev} of {disk.domain} is there twice")
        names.add((disk.domain, disk.vdev))
        for key in ("device", "metadata", "journal"):
            path = getattr(disk, key)
            if path in paths:
                raise ConfigError(f"{path} has two uses: {paths[path]}, and {key} of {disk.name}")
            paths[path] = f"{key} of {disk.name}"
