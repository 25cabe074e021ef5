"""The device model of an HVM guest (QEMU): halting it, its state, its writes to guest memory.

The socket is libxl's own and serves one client at a time, so it is held only around a checkpoint: xl's commands for
the guest wait that long and no longer. QEMU writes its state into a memory file of ours, which it gets over the
socket, so nothing of it touches a disk. Commands: QEMU's qapi/misc.json (stop, cont, add-fd) and qapi/migration.json
(xen-save-devices-state, xen-set-global-dirty-log); libxl uses the same ones (tools/libs/light/libxl_qmp.c,
libxl_dom_save.c)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from remus_agent.adapters.xen.qmp import Qmp, QmpError
from remus_agent.errors import HypervisorError

RUN: Final = Path("/run/xen")
"""Where libxl puts the sockets of its device models (libxl_dm.c)."""
PROGRAM: Final = Path("/usr/libexec/xen-qemu-system-i386")
"""What Debian's libxl runs for an HVM guest."""
PATIENCE: Final = 5.0
"""Seconds for one command. While a guest is down this is the longest that a hung device model keeps it there."""
_FDSET: Final = 0x52454D


def socket_of(domid: int, run: Path = RUN) -> Path:
    """The socket on which libxl talks to a guest's device model."""
    return run / f"qmp-libxl-{domid}"


class DeviceModel:
    """QEMU of one domain. Blocking; use it from one thread."""

    def __init__(self, domid: int, name: str, run: Path = RUN) -> None:
        self._socket, self._name = socket_of(domid, run), name
        self._state = os.memfd_create("device-model-state", os.MFD_CLOEXEC)
        self._qmp: Qmp | None = None

    @contextmanager
    def line(self) -> Iterator[None]:
        """Hold the socket. All other methods need it. Raises HypervisorError when QEMU does not answer."""
        try:
            self._qmp = qmp = Qmp(self._socket, PATIENCE)
        except QmpError as error:
            raise self._failed(str(error)) from error
        try:
            yield
        finally:
            self._qmp = None
            qmp.close()

    def dirty_log(self, *, on: bool) -> None:
        """Let QEMU tell Xen which pages it writes to: log-dirty sees only what the guest itself writes."""
        self._execute("xen-set-global-dirty-log", {"enable": on})

    def prepare(self) -> None:
        """Before the guest is suspended: hand QEMU an empty file for its state."""
        os.ftruncate(self._state, 0)
        # Opened anew for its own position, and to be write-only: QEMU takes a descriptor only if its mode is the one asked for.
        fd = os.open(f"/proc/self/fd/{self._state}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            self._execute("add-fd", {"fdset-id": _FDSET}, [fd])
        finally:
            os.close(fd)

    def stop(self) -> None:
        """Halt its devices: from now on it writes to no memory and sends no frame."""
        self._execute("stop")

    def save(self) -> bytes:
        """State of its devices, without guest memory. `prepare` must have been called on this line."""
        # live: false, or QEMU would give up its disks as for a guest that leaves this host.
        self._execute("xen-save-devices-state", {"filename": f"/dev/fdset/{_FDSET}", "live": False})
        size = os.fstat(self._state).st_size
        state = os.pread(self._state, size, 0)
        if not size or len(state) != size:
            raise self._failed("QEMU saved nothing")
        return state

    def cont(self) -> None:
        """Let its devices go on."""
        self._execute("cont")

    def close(self) -> None:
        """Safe to call twice."""
        state, self._state = self._state, -1
        if state >= 0:
            os.close(state)

    def _execute(self, command: str, arguments: Mapping[str, object] | None = None, fds: Sequence[int] = ()) -> None:
        if self._qmp is None:
            raise RuntimeError("the line to the device model is not held")
        try:
            self._qmp.execute(command, arguments, fds)
        except QmpError as error:
            raise self._failed(str(error)) from error

    def _failed(self, what: str) -> HypervisorError:
        return HypervisorError(
            f"the device model at {self._socket}: {what}",
            operation="talk to the device model",
            domain=self._name,
            hint="look at /var/log/xen/qemu-dm-*.log; another program that holds its QMP socket makes it deaf",
        )
