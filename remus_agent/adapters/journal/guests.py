"""The protections of this host that must outlive a restart: one JSON file for each domain."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import fields
from pathlib import Path
from typing import Final

import msgspec

from remus_agent.adapters.journal import directory
from remus_agent.errors import JournalError
from remus_agent.store_ports import GuestRecord, LoadedGuests

_SUFFIX: Final = ".json"


class GuestFiles:
    """`store_ports.GuestStore`: one file a guest in a directory. Raises JournalError. Safe to use from several tasks."""

    def __init__(self, path: Path) -> None:
        self._directory = path
        self._lock = threading.Lock()

    async def load(self, name: str) -> GuestRecord | None:
        """The record of a domain, None if there is none."""
        return await asyncio.to_thread(self._load, name)

    async def load_all(self) -> LoadedGuests:
        """All records, sorted by name. One damaged file does not hide the others."""
        return await asyncio.to_thread(self._load_all)

    async def save(self, record: GuestRecord) -> None:
        """Durable when it returns; after a crash there is the old record or the new one."""
        await asyncio.to_thread(self._save, record)

    async def remove(self, name: str) -> bool:
        """Forget a domain, durably; False if it was not known."""
        return await asyncio.to_thread(self._remove, name)

    def _path(self, name: str) -> Path:
        return self._directory / f"{directory.check_name(name)}{_SUFFIX}"

    def _load(self, name: str) -> GuestRecord | None:
        path = self._path(name)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise directory.failure(error, "read", path, name) from error
        try:
            plain = msgspec.json.decode(data, type=dict[str, object])
            unknown = plain.keys() - {field.name for field in fields(GuestRecord)}
            if unknown:
                raise _damaged(
                    path,
                    name,
                    f"unknown fields {', '.join(sorted(unknown))}",
                    "run the newer release again that wrote it; or ",
                )
            record = msgspec.convert(plain, GuestRecord)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _damaged(path, name, str(error)) from error
        if record.name != name:
            raise _damaged(path, name, f"it is the record of {record.name!r}")
        return record

    def _load_all(self) -> LoadedGuests:
        records: list[GuestRecord] = []
        damaged: list[JournalError] = []
        for path in directory.files(self._directory, _SUFFIX):
            try:
                record = self._load(path.name.removesuffix(_SUFFIX))
            except JournalError as error:
                damaged.append(error)
                continue
            if record is not None:
                records.append(record)
        return LoadedGuests(tuple(records), tuple(damaged))

    def _save(self, record: GuestRecord) -> None:
        path = self._path(record.name)
        # What came later and says nothing is left out, so that a release from before it reads the record.
        silent = {field.name for field in fields(record) if getattr(record, field.name) == field.default}
        plain = {name: value for name, value in msgspec.to_builtins(record).items() if name not in silent}
        data = msgspec.json.format(msgspec.json.encode(plain), indent=2) + b"\n"
        with self._lock:
            try:
                directory.make(self._directory)
                directory.replace_file(path, data)
            except OSError as error:
                raise directory.failure(
                    error, "save", path, record.name, "the record before it is still in force"
                ) from error

    def _remove(self, name: str) -> bool:
        path = self._path(name)
        with self._lock:
            try:
                path.unlink()
                directory.sync(self._directory)
            except FileNotFoundError:
                return False
            except OSError as error:
                raise directory.failure(error, "remove", path, name) from error
        return True


def _damaged(path: Path, name: str, reason: str, first: str = "") -> JournalError:
    return JournalError(
        f"{path} is damaged: {reason}",
        operation="read protections",
        domain=name,
        left="the file was not changed; nothing is done for this domain",
        hint=f"{first}repair it, or move it away and protect the domain again",
    )
