"""The record of a guest as bytes: JSON with exactly the fields of `Ownership`. Strict, because whoever reaches the witness may
have written it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from remus_agent.machines.authority import Ownership
from remus_agent.protocol.replication.messages import DomainName, ShortText, Text

Host = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")]


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    owner: Host
    generation: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    state: Literal["solo", "protected"]
    backup: Host | None
    name: DomainName
    reason: Text
    changed_by: ShortText


_DECODER: Final = msgspec.json.Decoder(_Record)


def encode(ownership: Ownership) -> bytes:
    """The record's bytes. Raises ValueError for what `decode` would not accept."""
    data = msgspec.json.encode(ownership)
    decode(data)
    return data


def decode(data: bytes) -> Ownership:
    """The record of these bytes. Raises ValueError, whose text says what is wrong."""
    found = _DECODER.decode(data)
    if (found.backup is None) != (found.state == "solo"):
        raise ValueError("a protected guest names its backup, and no other does")
    if found.backup == found.owner:
        raise ValueError("the owner cannot be its own backup")
    return Ownership(**msgspec.structs.asdict(found))
