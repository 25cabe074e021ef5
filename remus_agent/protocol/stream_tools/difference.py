"""What differs between two guests as two streams (or two epochs of one) hold them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream import hvm_context, records
from remus_agent.protocol.stream_tools.pages import ranges
from remus_agent.protocol.stream_tools.rules import Guest
from remus_agent.protocol.stream_tools.state import State

_LEAF: Final = struct.Struct("<IIIIII")
_MSR: Final = struct.Struct("<IIQ")
_EMPTY_SUBLEAF: Final = 0xFFFFFFFF
_RUNS: Final = 16
"""Most differing runs of bytes that are listed of one record."""
_RUN_GAP: Final = 8
"""Equal bytes that end a run of differing ones."""
_SHOWN_BYTES: Final = 32

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. section: header, configuration, static, tsc, params, hvm or record; a, b: the values, None
    where there is none; numbers of registers and blobs are hexadecimal text."""

    section: str
    name: str
    a: Value
    b: Value


@dataclass(frozen=True, slots=True)
class MemoryDifference:
    """Pfns by (first, last), sorted. differ: in both, with other content; only_a, only_b: in one of them."""

    pages_a: int
    pages_b: int
    differ: list[tuple[int, int]]
    only_a: list[tuple[int, int]]
    only_b: list[tuple[int, int]]

    @property
    def same(self) -> bool:
        """No difference."""
        return not (self.differ or self.only_a or self.only_b)


def memory_difference(a: State, b: State) -> MemoryDifference:
    """Compare the memory of two guests, by the digests of their pages."""
    pfns_a, digests_a = a.memory.entries()
    pfns_b, digests_b = b.memory.entries()
    at = np.searchsorted(pfns_b, pfns_a)  # both are sorted
    at[at == len(pfns_b)] = 0
    both = pfns_b[at] == pfns_a if len(pfns_b) else np.zeros(len(pfns_a), dtype=bool)
    alone = np.ones(len(pfns_b), dtype=bool)
    alone[at[both]] = False
    differ = digests_a[both] != digests_b[at[both]]
    return MemoryDifference(
        len(pfns_a),
        len(pfns_b),
        ranges(pfns_a[both][differ]),
        ranges(pfns_a[~both]),
        ranges(pfns_b[alone]),
    )


def count_pfns(found: list[tuple[int, int]]) -> int:
    """How many pfns ranges hold."""
    return sum(last - first + 1 for first, last in found)


def changes(guest_a: Guest, a: State, guest_b: Guest, b: State) -> Iterator[Change]:
    """Everything but memory that differs, section by section. Raises StreamError for an HVM_CONTEXT that is none."""
    yield from _mapped("header", _headers(guest_a), _headers(guest_b))
    yield from _mapped("configuration", _config(guest_a), _config(guest_b))
    yield from _static(a.static, b.static)
    yield from _mapped("tsc", _tsc(a.tail), _tsc(b.tail))
    yield from _mapped("params", _params(a.tail), _params(b.tail))
    yield from _hvm(a.tail, b.tail)
    named = ("X86_TSC_INFO", "HVM_PARAMS", "HVM_CONTEXT")
    for name in _keys(a.tail, b.tail):
        if name not in named:
            yield from _bodies("record", name, a.tail.get(name), b.tail.get(name))


def _keys(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return [*a, *(name for name in b if name not in a)]


def _mapped(section: str, a: Mapping[str, Value], b: Mapping[str, Value]) -> Iterator[Change]:
    for name in _keys(a, b):
        if name not in a or name not in b or a[name] != b[name] or type(a[name]) is not type(b[name]):
            yield Change(section, name, a.get(name), b.get(name))


def _headers(guest: Guest) -> dict[str, Value]:
    if guest.domain is None or guest.xl is None:
        return {}
    return {
        "guest type": guest.domain.type.name,
        "Xen version": "{}.{}".format(*guest.domain.xen),
        "libxc version": guest.version,
        "configuration is JSON": guest.xl.json,
        "xl optional flags": guest.xl.optional_flags,
        "xl trailing data": guest.xl.trailing.hex(),
    }


def _config(guest: Guest) -> dict[str, Value]:
    if guest.config is None:
        return {"xl.cfg": guest.xl.config.decode(errors="replace")} if guest.xl is not None else {}
    return _flat(guest.config)


def _flat(config: Mapping[str, Any]) -> dict[str, Value]:
    """Leaves of a JSON value by path; an empty object or list is a leaf, so that it differs from none."""
    leaves: dict[str, Value] = {}
    left: list[tuple[str, Any]] = [("", config)]  # no recursion: how deep a configuration nests is not ours to say
    while left:
        path, value = left.pop()
        if isinstance(value, dict) and value:
            left += [(f"{path}.{name}" if path else name, one) for name, one in reversed(value.items())]
        elif isinstance(value, list) and value:
            left += [(f"{path}[{index}]", one) for index, one in reversed(list(enumerate(value)))]
        else:
            leaves[path] = value if value is None or isinstance(value, str | int | float | bool) else str(value)
    return leaves


def _static(a: Mapping[str, bytes], b: Mapping[str, bytes]) -> Iterator[Change]:
    for name in _keys(a, b):
        old, new = a.get(name), b.get(name)
        if old is None or new is None:
            yield Change("static", name, _blob(old), _blob(new))
        elif name == "X86_CPUID_POLICY":
            yield from _mapped("static", _leaves(old), _leaves(new))
        elif name == "X86_MSR_POLICY":
            yield from _mapped("static", _msrs(old), _msrs(new))
        else:
            yield from _bodies("record", name, old, new)


def _leaves(policy: bytes) -> dict[str, Value]:
    out: dict[str, Value] = {}
    for leaf, sub, *registers in _LEAF.iter_unpack(policy):
        name = f"cpuid {leaf:#x}" + (f"/{sub:#x}" if sub != _EMPTY_SUBLEAF else "")
        out[name] = " ".join(f"{value:08x}" for value in registers)
    return out


def _msrs(policy: bytes) -> dict[str, Value]:
    return {f"msr {index:#x}": f"{value:#x}" for index, _, value in _MSR.iter_unpack(policy)}


def _tsc(tail: Mapping[str, bytes]) -> dict[str, Value]:
    if "X86_TSC_INFO" not in tail:
        return {}
    tsc = records.parse_tsc_info(memoryview(tail["X86_TSC_INFO"]), 0)
    return {"mode": tsc.mode, "khz": tsc.khz, "nsec": tsc.nsec, "incarnation": tsc.incarnation}


def _params(tail: Mapping[str, bytes]) -> dict[str, Value]:
    if "HVM_PARAMS" not in tail:
        return {}
    known = {int(param): param.name for param in c.HvmParam}
    pairs = records.parse_hvm_params(memoryview(tail["HVM_PARAMS"]), 0)
    return {known.get(index, f"param {index}"): f"{value:#x}" for index, value in pairs}


def _hvm(a: Mapping[str, bytes], b: Mapping[str, bytes]) -> Iterator[Change]:
    old, new = _save_records(a), _save_records(b)
    for name in _keys(old, new):
        one, other = old.get(name), new.get(name)
        if one is None or other is None:
            yield Change("hvm", name, _blob(one.body if one else None), _blob(other.body if other else None))
        elif one.body != other.body:
            yield from _registers(name, one, other)


def _save_records(tail: Mapping[str, bytes]) -> dict[str, hvm_context.SaveRecord]:
    if "HVM_CONTEXT" not in tail:
        return {}
    return {f"{record.name} {record.instance}": record for record in hvm_context.walk(memoryview(tail["HVM_CONTEXT"]))}


def _registers(name: str, a: hvm_context.SaveRecord, b: hvm_context.SaveRecord) -> Iterator[Change]:
    old, new = hvm_context.values(a), hvm_context.values(b)
    if old and new:
        yield from _mapped("hvm", _shown(name, old), _shown(name, new))
    else:
        yield from _bodies("hvm", name, a.body, b.body)


def _shown(name: str, values: Mapping[str, int | bytes]) -> dict[str, Value]:
    return {
        f"{name} {field}": f"{value:#x}" if isinstance(value, int) else value.hex() for field, value in values.items()
    }


def _bodies(section: str, name: str, a: c.Buffer | None, b: c.Buffer | None) -> Iterator[Change]:
    """The runs of bytes in which two bodies differ."""
    if a is None or b is None:
        yield Change(section, name, _blob(a), _blob(b))
        return
    if len(a) != len(b):
        yield Change(section, f"{name} length", len(a), len(b))
    common = min(len(a), len(b))
    old, new = memoryview(a)[:common], memoryview(b)[:common]
    at = np.flatnonzero(np.frombuffer(old, np.uint8) != np.frombuffer(new, np.uint8))
    if not len(at):
        return
    ends = np.flatnonzero(np.diff(at) > _RUN_GAP)
    firsts = at[np.concatenate(([0], ends + 1))].tolist()
    lasts = at[np.concatenate((ends, [len(at) - 1]))].tolist()
    for first, last in list(zip(firsts, lasts, strict=True))[:_RUNS]:
        where = f"{name} bytes {first:#x}-{last:#x}"
        yield Change(section, where, _hex(old[first : last + 1]), _hex(new[first : last + 1]))
    if len(firsts) > _RUNS:
        more = len(firsts) - _RUNS
        yield Change(section, f"{name}, {more} more runs of bytes", None, None)


def _hex(data: memoryview) -> str:
    return data[:_SHOWN_BYTES].hex() + ("..." if len(data) > _SHOWN_BYTES else "")


def _blob(data: c.Buffer | None) -> str | None:
    return None if data is None else f"{len(data)} bytes"
