"""The stock toolstack's processes: `xl` with its answer or its complaint."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from remus_agent.errors import HypervisorError

XL: Final = "xl"
_TAIL: Final = 2000


def tail(output: bytes) -> str:
    """The end of what a process said, on one line."""
    text = output.decode(errors="replace").strip()
    return " / ".join(text[-_TAIL:].splitlines()) or "it said nothing"


async def run(*arguments: str, seconds: float = 60.0) -> bytes:
    """Run `xl` with these arguments and return what it printed. Raises HypervisorError when it fails or
    takes longer."""
    try:
        process = await asyncio.create_subprocess_exec(
            XL,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise HypervisorError(f"xl cannot be run: {error}", hint="install xen-utils") from error
    try:
        async with asyncio.timeout(seconds):
            out, complaint = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise HypervisorError(f"xl {' '.join(arguments)} took longer than {seconds:g} s") from None
    if process.returncode != 0:
        raise HypervisorError(f"xl {' '.join(arguments)} failed: {tail(complaint or out)}")
    return out


async def configuration(name: str, domid: int) -> dict[str, Any]:
    """libxl's configuration of a running domain: the `config` member of `xl list -l`, which an xl header
    carries."""
    try:
        entries = json.loads(await run("list", "-l", str(domid)))
        entry = entries[0] if isinstance(entries, list) else entries
        config = entry["config"]
        if entry["domid"] != domid or config["c_info"]["name"] != name:
            raise HypervisorError("xl described another domain", operation="read the configuration", domain=name)
    except (ValueError, LookupError, TypeError) as error:
        raise HypervisorError(
            f"xl list -l gave something unexpected: {error!r}",
            operation="read the configuration",
            domain=name,
        ) from error
    return dict(config)
