"""Protections that are suspended for a time, over restarts of the agent: one JSON file a guest."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from remus_agent.adapters.journal import directory
from remus_agent.errors import JournalError
from remus_agent.store_ports import PauseNote

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_SUFFIX: Final = ".json"


class _Written(msgspec.Struct, forbid_unknown_fields=True):
    """boot: in which `note.until` means something, because that clock begins anew with each."""

    boot: str
    note: PauseNote


class PauseFiles:
    """`store_ports.PauseStore`: one file a guest in a directory. boot_id: file that says which start of the host this is."""

    def __init__(self, path: Path, boot_id: Path = BOOT_ID) -> None:
        self._directory = path
        self._boot_id = boot_id

    async def load_all(self) -> tuple[list[PauseNote], list[JournalError]]:
        """One damaged file does not hide the others. A note from before the host was started is over. Raises JournalError when
        nobody knows which there are."""
        return await asyncio.to_thread(self._load_all)

    async def save(self, note: PauseNote) -> None:
        """Durable when it returns."""
        await asyncio.to_thread(self._save, note)

    async def remove(self, name: str) -> bool:
        """False if there was none."""
        return await asyncio.to_thread(self._remove, name)

    def _path(self, name: str) -> Path:
        return self._directory / f"{directory.check_name(name)}{_SUFFIX}"

    def _boot(self) -> str:
        return self._boot_id.read_text().strip()

    def _load_all(self) -> tuple[list[PauseNote], list[JournalError]]:
        notes: list[PauseNote] = []
        damaged: list[JournalError] = []
        for path in directory.files(self._directory, _SUFFIX):
            name = path.name.removesuffix(_SUFFIX)
            try:
                written = msgspec.json.decode(path.read_bytes(), type=_Written)
                over = written.boot != self._boot()
            except OSError as error:
                damaged.append(directory.failure(error, "read", path, name))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                damaged.append(_damaged(path, name, str(error)))
            else:
                if written.note.name != name:
                    damaged.append(_damaged(path, name, f"it is the note of {written.note.name!r}"))
                else:
                    notes.append(replace(written.note, until=0.0) if over else written.note)
        return notes, damaged

    def _save(self, note: PauseNote) -> None:
        path = self._path(note.name)
        try:
            directory.make(self._directory)
            directory.replace_file(path, msgspec.json.encode(_Written(self._boot(), note)) + b"\n")
        except OSError as error:
            raise directory.failure(error, "save", path, note.name, "nothing was changed") from error

    def _remove(self, name: str) -> bool:
        path = self._path(name)
        try:
            path.unlink()
            directory.sync(self._directory)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise directory.failure(error, "remove", path, name) from error
        return True


def _damaged(path: Path, name: str, reason: str) -> JournalError:
    return JournalError(
        f"{path} is damaged: {reason}",
        operation="read pauses",
        domain=name,
        left="the file was not changed; the guest is not protected again by itself",
        hint=f"move it away, and protect the guest: remusctl protect {name} --peer ...",
    )
