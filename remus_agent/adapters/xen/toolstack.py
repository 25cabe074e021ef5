"""The stock toolstack's processes: `xl` with its answer or its complaint."""

from __future__ import annotations

import json
from typing import Any, Final

from remus_agent.adapters import process
from remus_agent.errors import HypervisorError

XL: Final = "xl"
_LATE: Final = (
    "see what it waits for: xenstored (`timeout 5 xenstore-list /`), a device of the domain (dmesg),"
    " or another xl (`ps ax`)"
)


async def run(
    *arguments: str,
    operation: str,
    domain: str,
    left: str,
    hint: str | None = None,
    seconds: float = 60.0,
) -> bytes:
    """Run `xl` with these arguments and return what it printed. Raises HypervisorError when it fails or
    takes longer. left: the state then; hint: what to do then, where it fails."""
    return await process.run(
        XL,
        *arguments,
        seconds=seconds,
        error=HypervisorError,
        operation=operation,
        domain=domain,
        left=left,
        hint=hint,
        package="xen-utils",
        late=_LATE,
    )


async def configuration(name: str, domid: int) -> dict[str, Any]:
    """libxl's configuration of a running domain: the `config` member of `xl list -l`, which an xl header
    carries."""
    said = await run(
        "list",
        "-l",
        str(domid),
        operation="read the configuration",
        domain=name,
        left="nothing was changed, the guest runs on",
        hint=f"try it: xl list -l {name}",
    )
    try:
        entries = json.loads(said)
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
