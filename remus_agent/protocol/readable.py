"""JSON of texts that are none: xenstore's values are bytes, and what is no UTF-8 in them becomes lone surrogates (PEP 383), in
names that errors repeat. Neither JSON nor UTF-8 can hold those.
"""

from __future__ import annotations

from typing import Any

import msgspec


def readable(value: Any) -> Any:
    """A plain value (str, dict, list, number) in which such a character is written as `\\udcff`, keys included."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {readable(key): readable(each) for key, each in value.items()}
        case list() | tuple():
            return [readable(each) for each in value]
        case _:
            return value


def to_json(value: object) -> bytes:
    """As `msgspec.json.encode`, and `readable`. Raises TypeError, ValueError, OverflowError."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(readable(msgspec.to_builtins(value)))
