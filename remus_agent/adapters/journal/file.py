"""Commit journal: one preallocated file of fixed size for each domain, of the blocks of `blocks.py`.

All blocks are written when the file is made: later writes need neither new space nor changes of the file's metadata, so one
fdatasync is one write of the device.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import threading
from pathlib import Path
from typing import Final

from remus_agent.adapters.journal import directory
from remus_agent.adapters.journal.blocks import BLOCK_BYTES, FILE_BYTES, Entry, following, newest, pack
from remus_agent.errors import JournalError
from remus_agent.store_ports import CommitRecord

log = logging.getLogger(__name__)

_NOT_COMMITTED: Final = "the epoch is not committed"


class FileJournal:
    """`store_ports.Journal` in one file. Made by `FileJournals.open`. Safe to use from several tasks."""

    def __init__(self, path: Path, domain: str, fd: int, found: Entry | None) -> None:
        self._path = path
        self._domain = domain
        self._fd = fd
        self._newest = found
        self._dead: str | None = None
        self._lock = threading.Lock()

    async def commit(self, record: CommitRecord) -> None:
        """Durable when it returns. Raises JournalError; then the epoch is not committed.

        After the device failed to make data durable, the journal refuses everything until it is opened again:
        the kernel would report a second attempt as a success without having written the data.
        """
        await asyncio.to_thread(self._commit, record)

    async def last(self) -> CommitRecord | None:
        """The newest commit, also of an earlier session; None when there never was one."""
        return self._newest.record if self._newest is not None else None

    async def close(self) -> None:
        """Wait for a commit under way and close the file. Safe to call twice."""
        await asyncio.to_thread(self._close)

    def _commit(self, record: CommitRecord) -> None:
        with self._lock:
            if self._dead is not None:
                raise self._error(f"{self._path} {self._dead}", record)
            entry = following(self._newest, record)
            block = self._pack(entry)
            try:
                _pwrite_all(self._fd, block, entry.offset)
            except OSError as error:
                raise directory.failure(error, "write", self._path, self._domain, _NOT_COMMITTED) from error
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                self._dead = "failed before and was not opened again since"
                self._withdraw(entry.offset)
                raise directory.failure(error, "make durable", self._path, self._domain, _NOT_COMMITTED) from error
            self._newest = entry

    def _withdraw(self, offset: int) -> None:
        """Best effort to keep an epoch that was not committed from being found later."""
        try:
            _pwrite_all(self._fd, bytes(BLOCK_BYTES), offset)
        except OSError as error:
            log.warning("%s: cannot clear a record that failed: %s", self._path, error)

    def _close(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, -1  # its number is somebody else's afterwards, also when that fails
            self._dead = "is closed"
            try:
                if fd >= 0:
                    os.close(fd)
            except OSError as error:  # what was committed is durable
                log.warning("%s: not closed in order: %s", self._path, error)

    def _pack(self, entry: Entry) -> bytes:
        record = entry.record
        try:
            block = pack(entry)
        except ValueError as error:
            raise self._error(f"the commit cannot be written down: {error}", record) from error
        before = self._newest.record if self._newest else None
        if before is not None and before.session == record.session and before.epoch >= record.epoch:
            raise self._error(f"epoch {before.epoch} of this session is committed already", record)
        return block

    def _error(self, message: str, record: CommitRecord) -> JournalError:
        return JournalError(message, operation="journal", domain=self._domain, epoch=record.epoch, left=_NOT_COMMITTED)


class FileJournals:
    """`store_ports.Journals`: one file a domain in a directory."""

    def __init__(self, path: Path) -> None:
        self._directory = path

    async def open(self, domain: str) -> FileJournal:
        """Open the journal of a domain, or make it with all its space. Raises JournalError."""
        return await asyncio.to_thread(self._open, domain)

    async def remove(self, domain: str) -> bool:
        """Forget a domain's commits; False if there were none. Its journal must be closed. Raises
        JournalError."""
        return await asyncio.to_thread(self._remove, domain)

    def _open(self, domain: str) -> FileJournal:
        path = self._directory / directory.check_name(domain)
        fd = -1
        try:
            directory.make(self._directory)
            if not path.exists():
                directory.replace_file(path, bytes(FILE_BYTES), reserve=True)
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            data = _pread_all(fd)
        except BlockingIOError as error:
            os.close(fd)
            raise JournalError(
                f"{path} is in use", operation="journal", domain=domain, hint="see whether another agent runs"
            ) from error
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            raise directory.failure(error, "open", path, domain) from error
        if len(data) != FILE_BYTES:
            os.close(fd)
            raise JournalError(
                f"{path} has {len(data)} bytes instead of {FILE_BYTES}",
                operation="journal",
                domain=domain,
                left="the file was not changed",
                hint="move it away if the copy of this domain on this host is no longer needed",
            )
        return FileJournal(path, domain, fd, newest(data))

    def _remove(self, domain: str) -> bool:
        path = self._directory / directory.check_name(domain)
        try:
            path.unlink()
            directory.sync(self._directory)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise directory.failure(error, "remove", path, domain) from error
        return True


def _pwrite_all(fd: int, data: bytes, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(fd, data[written:], offset + written)


def _pread_all(fd: int) -> bytes:
    """The file, and one byte more to notice one that is too long."""
    data = bytearray()
    while len(data) <= FILE_BYTES and (part := os.pread(fd, FILE_BYTES + 1 - len(data), len(data))):
        data += part
    return bytes(data)
