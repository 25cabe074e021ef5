"""One run of a fence agent, as cluster managers do it: options as key=value lines on standard input, the answer in the exit code.

What is given to it is never logged: passwords are among it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from remus_agent.adapters.process import reap
from remus_agent.errors import FenceTimeout, FencingError

_KEPT: Final = 256 * 1024
"""Bytes of a stream that are kept; metadata of the largest agents have a quarter of that."""
_PIECE: Final = 65536


@dataclass(frozen=True, slots=True)
class Ended:
    """code: its exit code; below 0 for a signal. out, complaint: the first bytes of what it said."""

    code: int
    out: str
    complaint: str


async def run(agent: Path, options: Mapping[str, str], seconds: float, operation: str) -> Ended:
    """Run it to its end. It and what it started are killed when this call ends. Raises FencingError when it cannot be started,
    FenceTimeout when it takes longer than so many seconds."""
    given = "".join(f"{key}={value}\n" for key, value in options.items()).encode()
    try:
        process = await asyncio.create_subprocess_exec(
            agent,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        )
    except OSError as error:
        raise FencingError(
            f"{agent} cannot be run: {error.strerror}",
            operation=operation,
            hint="install the package of this fence agent, or correct its name",
        ) from error
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise FencingError(f"{agent} has no pipes", operation=operation)
    try:
        async with asyncio.timeout(seconds):
            out, complaint, _ = await asyncio.gather(
                _read(process.stdout), _read(process.stderr), _give(process.stdin, given)
            )
            code = await process.wait()
    except TimeoutError:
        raise FenceTimeout(
            f"{agent} did not end within {seconds:g} s and was killed",
            operation=operation,
            hint="try it by hand; give it more time with `timeout`",
        ) from None
    finally:
        await _end(process, operation)
    return Ended(code, out, complaint)


async def _end(process: asyncio.subprocess.Process, operation: str) -> None:
    """Kill all of its process group, which is its own: the agent may have started ssh, ipmitool or a shell."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await reap(process, operation)


async def _give(pipe: asyncio.StreamWriter, given: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # an agent need not read what it is given
        pipe.write(given)
        await pipe.drain()
    pipe.close()


async def _read(pipe: asyncio.StreamReader) -> str:
    """All of it, so that the agent never waits for us; what is kept of it is limited."""
    kept = bytearray()
    while piece := await pipe.read(_PIECE):
        kept += piece[: _KEPT - len(kept)]
    return kept.decode(errors="replace")
