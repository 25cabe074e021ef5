"""Xen's `libxl-save-helper` as a process of ours: started, listened to, answered, ended.

It is the part of the toolstack that reads a guest's memory and processors (xc_domain_save). It waits in each of its
callbacks until it is answered; between two messages it works."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import subprocess
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Final

from remus_agent.adapters.process import REAP, tail
from remus_agent.errors import HypervisorError, ProtocolError
from remus_agent.protocol import save_helper as protocol
from remus_agent.protocol.save_helper import Callback, Complete, Log, LogLevel, Message, Progress

log = logging.getLogger(__name__)

_READ: Final = 1 << 16
_COMPLAINTS: Final = 3
"""Errors that it said last and that are repeated in ours."""
_EXIT: Final = 5.0
"""Seconds to exit after it has closed its output."""


def helper_path(version: tuple[int, int]) -> Path:
    """Where Debian's xen-utils of this Xen release has it."""
    return Path(f"/usr/lib/xen-{version[0]}.{version[1]}/bin/libxl-save-helper")


class SaveHelper:
    """One helper that takes checkpoints of a domain. io_fd: its end of the stream's socket. Use it from one thread.

    waiting: the callback it waits in for an answer, None while it works."""

    def __init__(self, path: Path, io_fd: int, domid: int, name: str) -> None:
        self._name = name
        self.waiting: Callback | None = None
        self._completed: Complete | None = None
        self._stopping = False
        self._decoder = protocol.Decoder()
        self._complaints: deque[str] = deque(maxlen=_COMPLAINTS)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            self._process = subprocess.Popen(
                [str(path), *protocol.arguments(io_fd, domid)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                bufsize=0,
                pass_fds=(io_fd,),
                start_new_session=True,
            )
        except OSError as error:
            self._said.close()
            raise HypervisorError(
                f"the save helper cannot be run: {error}",
                operation="start the save helper",
                domain=name,
                hint="install the xen-utils of the running Xen",
            ) from error
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("a pipe was asked for")
        self._to, self._from = self._process.stdin, self._process.stdout
        os.set_blocking(self._from.fileno(), False)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def fileno(self) -> int:
        """Readable when it has said something, or has ended."""
        return self._from.fileno()

    def listen(self) -> bool:
        """Take in what it has said, without waiting. True: there was something. Raises HypervisorError when it
        has given up, has ended or talks nonsense."""
        heard = False
        while (data := self._read()) is not None:
            if not data:
                if heard:
                    break  # what it said before it ended counts; the next call tells of its end
                raise self._ended()
            heard = True
            self._take(data)
            if self._completed is not None and not self._stopping:
                raise self._gave_up(self._completed)
        return heard

    def answer(self, value: int = protocol.CONTINUE) -> None:
        """Let it go on from the callback it waits in. Raises HypervisorError when it has ended meanwhile."""
        if self.waiting is None:
            raise RuntimeError("the save helper does not wait for an answer")
        self.waiting = None
        try:
            self._to.write(protocol.reply(value))
        except OSError as error:
            raise self._ended() from error

    def stop(self, seconds: float) -> bool:
        """End it, whatever it does. True: it has cleaned up behind it, so log-dirty is off. Safe to call twice. Raises
        HypervisorError when it does not end although it was killed.

        One that waits is told to stop. One that works gets SIGTERM, which makes its next write fail; while it waits
        for an answer, SIGTERM would end it without cleaning up (libxl_save_helper.c, read_exactly)."""
        if not self._stopping:
            self._stopping = True
            if self.waiting is None and self._completed is None:
                self._process.terminate()
            try:
                self._see_off(time.monotonic() + seconds)
            finally:
                self._to.close()
                self._from.close()
                self._said.close()
        return self._completed is not None and self._process.returncode == 0

    def _see_off(self, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        with contextlib.suppress(HypervisorError):  # it has ended: that is what is wanted
            while (left := deadline - time.monotonic()) > 0:
                if self.waiting is not None:
                    self.answer(protocol.STOP)
                poll.poll(left * 1000)
                self.listen()
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("%s: the save helper does not end; it is killed", self._name)
            self._process.kill()
            try:
                self._process.wait(REAP)
            except subprocess.TimeoutExpired:
                raise HypervisorError(
                    f"the save helper (process {self._process.pid}) was killed and does not end: it waits for the kernel",
                    operation="end the save helper",
                    domain=self._name,
                    left="the guest runs",
                    hint="see dmesg on this host for what does not answer; the process ends when that does",
                ) from None

    def _read(self) -> bytes | None:
        """None: nothing at present; empty: the end."""
        try:
            return os.read(self._from.fileno(), _READ)
        except BlockingIOError:
            return None

    def _take(self, data: bytes) -> None:
        try:
            messages = self._decoder.feed(data)
        except ProtocolError as error:
            raise HypervisorError(
                error.message, operation=error.operation, domain=self._name, left=_LEFT, hint=error.hint
            ) from error
        for message in messages:
            self._handle(message)

    def _handle(self, message: Message) -> None:
        match message:
            case Log():
                self._note(message)
            case Progress():
                done = f" {message.done}/{message.total}" if message.total else ""
                log.debug("%s: %s: %s%s", self._name, message.context, message.doing, done)
            case Callback():
                self.waiting = message
            case Complete():
                self._completed = message
                with contextlib.suppress(OSError):
                    self._to.write(protocol.reply(0))
            case _:
                raise HypervisorError(f"the save helper asked for something unexpected: {message}", domain=self._name)

    def _note(self, message: Log) -> None:
        text = message.text + (f" ({os.strerror(message.error)})" if message.error > 0 else "")
        level = logging.DEBUG
        if message.level >= LogLevel.ERROR:
            self._complaints.append(text)
            # Being stopped is an error for it, and none for us.
            level = logging.INFO if self._stopping else logging.ERROR
        elif message.level == LogLevel.WARN:
            level = logging.WARNING
        elif message.level in (LogLevel.INFO, LogLevel.NOTICE):
            level = logging.INFO
        log.log(level, "%s: %s: %s", self._name, message.context, text)

    def _gave_up(self, result: Complete) -> HypervisorError:
        reason = os.strerror(result.error) if result.error > 0 else "no errno"
        return self._error(f"the save helper gave up with {result.status} ({reason})")

    def _ended(self) -> HypervisorError:
        try:
            status = self._process.wait(_EXIT)
        except subprocess.TimeoutExpired:
            return self._error("the save helper closed its output and goes on")
        how = f"status {status}" if status >= 0 else f"signal {-status}"
        self._said.seek(0)
        return self._error(f"the save helper ended with {how}: {tail(self._said.read())}")

    def _error(self, what: str) -> HypervisorError:
        said = f"; it said: {' / '.join(self._complaints)}" if self._complaints else ""
        return HypervisorError(
            what + said,
            operation="take a checkpoint",
            domain=self._name,
            left=_LEFT,
            hint="the reason stands above; protection starts over with a full copy",
        )


_LEFT: Final = "the guest runs; this copy of it is unusable"
