"""The part of a stream before memory: parse it, and give its domain another name.

Order: xl header with the JSON configuration, libxl header, LIBXC_CONTEXT, libxc image header, domain header,
(of a PV guest: X86_PV_INFO,) X86_CPUID_POLICY, X86_MSR_POLICY, STATIC_DATA_END (libxc version 3).
Source in Xen: tools/libs/guest/xg_sr_save.c (save), xg_sr_common_x86.c (write_x86_cpu_policy_records).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from remus_agent.errors import ConfigError
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream import headers, records
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.reader import Event, Position, StreamReader

_CONFIG_START: Final = headers.XL_FIXED.size + 4
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_POLICY: Final = (Xc.X86_CPUID_POLICY, Xc.X86_MSR_POLICY, Xc.STATIC_DATA_END)
_STATIC: Final = {c.DomainType.HVM: _POLICY, c.DomainType.PV: (Xc.X86_PV_INFO, *_POLICY)}
_NAME_LENGTH_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class Preamble:
    """What a preamble says. config: libxl's domain configuration; name: its c_info.name; xen: (major, minor)
    of the writer; cpuid, msr: bodies of the policy records; version: of the libxc stream; guest: its domain header's."""

    config: dict[str, Any]
    name: str
    xen: tuple[int, int]
    cpuid: bytes
    msr: bytes
    version: int
    guest: c.DomainType = c.DomainType.HVM


def parse_preamble(data: c.Buffer) -> Preamble:
    """Parse a whole preamble. Raises StreamError for anything missing, out of order or left over."""
    xl, events = _events(data)
    image = next(event for event in events if isinstance(event, headers.ImageHeader))
    domain = next(event for event in events if isinstance(event, headers.DomainHeader))
    found = [event for event in events if isinstance(event, records.Record) and event.layer is c.Layer.LIBXC]
    kinds = [record.type for record in found if not record.optional]
    wanted = _STATIC[domain.type]
    if tuple(kinds) != wanted:
        names = ", ".join(records.record_name(c.Layer.LIBXC, kind) for kind in kinds)
        raise records.refused(
            "wrong order: the preamble holds other records than it must",
            _libxc_offset(xl),
            expected=", ".join(kind.name for kind in wanted),
            found=names,
        )
    config = _config(xl)
    bodies = {record.type: bytes(record.body) for record in found}
    return Preamble(
        config,
        config["c_info"]["name"],
        domain.xen,
        bodies[Xc.X86_CPUID_POLICY],
        bodies[Xc.X86_MSR_POLICY],
        image.version,
        domain.type,
    )


def renamed(data: c.Buffer, new_name: str) -> bytes:
    """The preamble with another c_info.name and the lengths that follow from it; every other byte is kept.

    Raises StreamError as parse_preamble, ConfigError for a name that cannot be a domain's."""
    if (
        not new_name.isprintable()
        or not 0 < len(new_name.encode(errors="replace")) <= _NAME_LENGTH_MAX
        or "/" in new_name
    ):
        raise ConfigError(
            f"{new_name!r} cannot be the name of a domain",
            operation="rename a domain in its stream",
            hint="use 1 to 255 bytes of printable characters without '/'",
        )
    parse_preamble(data)
    xl, _ = _events(data)
    text = xl.config.decode()
    start, end = _member(text, _member(text, (0, len(text)), "c_info"), "name")
    config = f"{text[:start]}{json.dumps(new_name)}{text[end:]}".encode()
    rest = memoryview(data).cast("B")[_size(xl) :]
    return headers.pack_xl_header(config, trailing=xl.trailing, optional_flags=xl.optional_flags) + rest


def _events(data: c.Buffer) -> tuple[headers.XlHeader, list[Event]]:
    """All events of a preamble that is whole: it ends with a STATIC_DATA_END."""
    reader = StreamReader()
    events = reader.feed(data)
    if any(isinstance(event, headers.ImageHeader) and event.version < 3 for event in events):
        raise records.refused(
            "a libxc stream of version 2 has no STATIC_DATA_END", reader.offset, expected="version 3", found="version 2"
        )
    if reader.position in (Position.HEADERS, Position.STATIC):
        reader.close()  # raises: names the structure that is cut off
    last = next((event for event in events if _is_static_data_end(event)), None)
    xl = events[0] if events else None
    if not isinstance(xl, headers.XlHeader) or not isinstance(last, records.Record):
        raise records.refused("the preamble is not whole", reader.offset, expected="STATIC_DATA_END", found="none")
    end = last.offset + c.RECORD_HEADER_SIZE
    if reader.offset != end:
        raise records.refused(
            "bytes after the preamble's STATIC_DATA_END", end, expected="none", found=f"{reader.offset - end}"
        )
    return xl, events


def _is_static_data_end(event: Event) -> bool:
    return isinstance(event, records.Record) and event.layer is c.Layer.LIBXC and event.type == Xc.STATIC_DATA_END


def _size(xl: headers.XlHeader) -> int:
    return _CONFIG_START + len(xl.config) + 1 + len(xl.trailing)


def _libxc_offset(xl: headers.XlHeader) -> int:
    return _size(xl) + headers.LIBXL_HEADER.size + c.RECORD_HEADER_SIZE


def _config(xl: headers.XlHeader) -> dict[str, Any]:
    if not xl.json:
        raise records.refused(
            "the configuration in the xl header is not JSON",
            _CONFIG_START,
            expected="JSON",
            found="the text of an xl.cfg",
        )
    try:
        config = json.loads(xl.config.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise records.refused(
            "the configuration is not JSON", _CONFIG_START, expected="JSON", found=str(error)
        ) from error
    info = config.get("c_info") if isinstance(config, dict) else None
    if not isinstance(info, dict) or not isinstance(info.get("name"), str):
        raise records.refused(
            "the configuration has no c_info.name", _CONFIG_START, expected="an object with a name", found="none"
        )
    return dict(config)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON value")


def _member(text: str, span: tuple[int, int], key: str) -> tuple[int, int]:
    """Where the value of a key stands in the object at text[span]; the text is known to be valid JSON."""
    found = [place for name, place in _members(text, span[0]) if name == key]
    if len(found) != 1:
        raise records.refused(
            f"the configuration has several members {key!r}",
            _CONFIG_START,
            expected="one",
            found=f"{len(found)} members",
        )
    return found[0]


def _members(text: str, start: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Keys of the object that begins at or after `start`, with the spans of their values."""
    decoder = json.JSONDecoder()
    at = _skip(text, _skip(text, start) + 1)
    while text[at] != "}":
        name, at = decoder.raw_decode(text, at)
        value = _skip(text, _skip(text, at) + 1)
        _, end = decoder.raw_decode(text, value)
        yield str(name), (value, end)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
