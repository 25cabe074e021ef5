"""Pid files that cannot name the wrong process.

A record keeps the pid, the process's start time in clock ticks since boot, the boot's id and a marker that
its command line must contain. A process counts as ours only when all four agree, so a recycled pid is never
signalled.
"""

import contextlib
import json
import os
import select
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.errors import LabError


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """Who a started process is."""

    pid: int
    start_ticks: int
    boot_id: str
    marker: str


def boot_id() -> str:
    """Id of the running kernel's boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def parse_stat(text: str) -> tuple[str, int]:
    """State letter and start time of a ``/proc/PID/stat`` line, whose command name may hold anything."""
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def record_of(pid: int, marker: str) -> ProcessRecord:
    """Record of the running process PID."""
    _, ticks = parse_stat(Path(f"/proc/{pid}/stat").read_text())
    return ProcessRecord(pid, ticks, boot_id(), marker)


def save(path: Path, record: ProcessRecord) -> None:
    """Write RECORD to PATH, completely or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(record)) + "\n")
    temporary.replace(path)


def load(path: Path) -> ProcessRecord | None:
    """Record in PATH, or None when there is none."""
    try:
        return ProcessRecord(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise LabError(f"{path} is damaged ({error}); remove it after checking by hand what runs") from error


def matches(record: ProcessRecord, stat: str, cmdline: bytes, boot: str) -> bool:
    """Whether the process described by STAT and CMDLINE is the one in RECORD, and is alive.

    A process whose executable is still being loaded has no CMDLINE yet, though who started it was told of its exec: pid,
    start and boot must do."""
    state, ticks = parse_stat(stat)
    words = cmdline.split(b"\0")
    return (
        state not in "ZX"
        and ticks == record.start_ticks
        and boot == record.boot_id
        and (not cmdline or any(record.marker.encode() in word for word in words))
    )


def alive(record: ProcessRecord) -> bool:
    """Whether the recorded process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{record.pid}/stat").read_text()
        cmdline = Path(f"/proc/{record.pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return matches(record, stat, cmdline, boot_id())


def send(record: ProcessRecord, number: signal.Signals) -> bool:
    """Signal the recorded process; False when it is gone. The pidfd pins the process while it is verified."""
    try:
        fd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return False
    try:
        if not alive(record):
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, number)
        return True
    finally:
        os.close(fd)


def wait_gone(record: ProcessRecord, timeout: float) -> bool:
    """Wait until the recorded process has ended; False when TIMEOUT seconds did not suffice."""
    try:
        fd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return True
    try:
        if not alive(record):
            return True
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        return bool(poller.poll(timeout * 1000)) or not alive(record)
    finally:
        os.close(fd)
