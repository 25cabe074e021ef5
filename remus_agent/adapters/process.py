"""Programs of the host: run one, take its answer or its complaint."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from remus_agent.errors import RemusError

log = logging.getLogger(__name__)

_TAIL: Final = 2000
REAP: Final = 10.0
"""Seconds that a process which was killed may take to end. One that waits for a device that does not answer (state D) takes until
that does, and who waited for it would wait as long."""


class Killed(Protocol):
    """What is needed of asyncio's process."""

    pid: int

    async def wait(self) -> int: ...


def tail(output: bytes) -> str:
    """The end of what a process said, on one line."""
    text = output.decode(errors="replace").strip()
    return " / ".join(text[-_TAIL:].splitlines()) or "it said nothing"


async def reap(process: Killed, what: str) -> None:
    """Wait until a process that was killed has ended, but not for ever."""
    try:
        async with asyncio.timeout(REAP):
            await process.wait()
    except TimeoutError:
        log.critical(
            "%s (process %d) was killed and does not end: it waits for the kernel, see dmesg", what, process.pid
        )


async def run(
    *command: str,
    seconds: float,
    error: type[RemusError],
    operation: str | None = None,
    domain: str | None = None,
    left: str | None = None,
    hint: str | None = None,
    package: str | None = None,
    late: str | None = None,
) -> bytes:
    """What the program printed. It is killed when this call ends before it does. Raises `error` when it cannot be started, fails,
    or takes longer than so many seconds. left: the state then. hint: what to do when it fails; package: what to install where it
    is missing; late: what to do when it takes long."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as failed:
        raise error(
            f"{command[0]} cannot be run: {failed.strerror}",
            operation=operation,
            domain=domain,
            left=left,
            hint=f"install the package {package}" if package else hint,
        ) from failed
    what = " ".join(command)
    try:
        async with asyncio.timeout(seconds):
            out, complaint = await process.communicate()
    except TimeoutError:
        raise error(
            f"{what} took longer than {seconds:g} s", operation=operation, domain=domain, left=left, hint=late or hint
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await reap(process, what)
    if process.returncode != 0:
        raise error(
            f"{what} failed: {tail(complaint or out)}", operation=operation, domain=domain, left=left, hint=hint
        )
    return out
