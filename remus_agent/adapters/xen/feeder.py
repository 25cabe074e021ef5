"""A stock `xl restore -p` that reads its stream from a pipe of ours.

Plain restore applies PAGE_DATA records as they come (xg_sr_restore.c, handle_page_data), waits without a
timeout for the next one, builds the rest of the domain after END and leaves it paused. A pipe that closes
before END makes it destroy what it has built."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Final

from remus_agent.adapters.process import REAP, tail
from remus_agent.adapters.xen.toolstack import XL
from remus_agent.errors import HypervisorError
from remus_agent.ports import Buffer
from remus_agent.protocol.unsent import Unsent

_PIPE_SIZE: Final = 1 << 20
_LOOK: Final = 0.5
"""Seconds between two looks at what xl does. Its time is counted in looks: while this host was frozen, so was xl."""
_STOP: Final = 30.0
"""Seconds for xl to clean up after its stream broke off, before it is killed."""


class Feeder:
    """One xl process. Blocking; use it from one thread. stall: seconds that xl may leave the pipe full."""

    def __init__(self, name: str, stall: float) -> None:
        self._name, self._stall = name, stall
        # A file instead of a pipe: nobody has to read along, and xl can never block on it.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        reader, self._pipe = os.pipe()
        try:
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
            os.set_blocking(self._pipe, False)
            # Opened again by name, so that no descriptor of it survives in the monitor that xl leaves behind.
            self._process = subprocess.Popen(
                [XL, "restore", "-p", "/dev/stdin"],
                stdin=reader,
                stdout=self._said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self.hang_up()
            raise HypervisorError(
                f"xl restore cannot be run: {error}", domain=name, hint="install xen-utils"
            ) from error
        finally:
            os.close(reader)

    @property
    def pid(self) -> int:
        """Of xl, which leaves the guest's pages to a process that it starts."""
        return self._process.pid

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Hand the bytes to xl. Raises HypervisorError when it ended or reads nothing for too long, and after `abort`: what was
        on its way when the copy was given up comes here behind that."""
        if self._pipe < 0:
            raise HypervisorError("the copy was given up meanwhile", domain=self._name)
        unsent = Unsent(buffers)
        while unsent:
            try:
                unsent.advance(os.writev(self._pipe, unsent.vector()))
            except BlockingIOError:
                self._wait_for_room()
            except OSError as error:
                raise self._ended(f"xl stopped reading ({error.strerror})") from error

    def finish(self, seconds: float) -> None:
        """End of stream: wait until xl has built the domain. Raises HypervisorError when it fails or takes
        longer."""
        self.hang_up()
        if self._process.poll() is None:
            self._wait_for_end(seconds)
        status = self._process.wait(REAP)
        if status != 0:
            raise self._ended(f"xl restore ended with status {status}")

    def abort(self) -> None:
        """Break the stream off and wait until xl is gone. Safe to call twice and after `finish`."""
        self.hang_up()
        try:
            self._process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            try:
                self._process.wait(REAP)
            except subprocess.TimeoutExpired:
                raise self._ended("xl was killed and does not end: it waits for the kernel, see dmesg") from None
        self._said.close()

    def hang_up(self) -> None:
        """Close our end of the pipe. Safe to call twice."""
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            os.close(pipe)

    def _wait_for_room(self) -> None:
        poll = select.poll()
        poll.register(self._pipe, select.POLLOUT)
        looks = 0
        while not poll.poll(_LOOK * 1000):
            if self._process.poll() is not None:
                raise self._ended("xl ended")
            looks += 1
            if looks * _LOOK >= self._stall:
                raise self._ended(f"xl read nothing for {self._stall:g} s")

    def _wait_for_end(self, seconds: float) -> None:
        """By a pidfd: Popen.wait with a limit looks every 50 ms, and clients wait for the guest."""
        process = os.pidfd_open(self._process.pid)
        try:
            poll = select.poll()
            poll.register(process, select.POLLIN)
            looks = 0
            while not poll.poll(_LOOK * 1000):
                looks += 1
                if looks * _LOOK >= seconds:
                    raise self._ended(f"xl did not finish the domain within {seconds:g} s")
        finally:
            os.close(process)

    def _ended(self, what: str) -> HypervisorError:
        self._said.seek(0)
        return HypervisorError(
            f"{what}: {tail(self._said.read())}",
            operation="build the copy",
            domain=self._name,
            left="the copy is unusable",
            hint="the reason stands above; a configuration that this host cannot satisfy is the usual one",
        )
