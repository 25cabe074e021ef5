"""Results for programs, in the format that -o names: JSON, or YAML in block style.

YAML is written here, and not by PyYAML, because dom0 shall not need another library for it: the values are those of JSON, so two
kinds of blocks and one kind of quotes are all it takes. `docs/development.md` says more.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterator
from typing import Final

FORMATS: Final = ("table", "json", "yaml")
_PLAIN: Final = re.compile(r"[A-Za-z_/][\w./%()+@-]*(?: [\w./%()+@-]+)*", re.ASCII)
"""Text that means itself in YAML without quotes, but for the words below. What begins like a number or a date is quoted."""
_WORDS: Final = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null"})
"""Words that readers of YAML 1.1 or 1.2 take for something else than text, in any case of letters."""
_HIDDEN: Final = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
"""What YAML does not let stand for itself, besides what JSON escapes."""


def show(options: argparse.Namespace, answer: object, shown: str) -> None:
    """Print an answer as -o asks for: for people as `shown`."""
    print(shown if options.output == "table" else document(answer, options.output))


def document(value: object, output: str) -> str:
    """One document of JSON or YAML."""
    return as_yaml(value) if output == "yaml" else as_json(value)


def entry(value: object, output: str) -> str:
    """One of many: with JSON an object on a line of its own, with YAML an item of one long list."""
    return as_yaml([value]) if output == "yaml" else json.dumps(value)


def message(value: object, output: str) -> str:
    """What stands beside the results, on standard error: with JSON an object on a line of its own, with YAML keys. Several
    messages with different keys are one document."""
    return as_yaml(value) if output == "yaml" else json.dumps(value)


def as_json(value: object) -> str:
    """For programs: one JSON document."""
    # File names and configurations can hold what is no text; it is written as JSON escapes it.
    return json.dumps(value, indent=2, ensure_ascii=False).encode(errors="backslashreplace").decode()


def as_yaml(value: object) -> str:
    """One YAML document of values that JSON has; readers of YAML 1.1 and of 1.2 get the same values."""
    return "\n".join(_block(value, ""))


def _block(value: object, indent: str) -> Iterator[str]:
    match value:
        case dict() if value:
            for key, inner in value.items():
                name = f"{indent}{_text(str(key))}:"
                if isinstance(inner, dict | list | tuple) and inner:
                    yield name
                    yield from _block(inner, indent + "  " if isinstance(inner, dict) else indent)
                else:
                    yield f"{name} {_scalar(inner)}"
        case list() | tuple() if value:
            for inner in value:
                first, *rest = _block(inner, indent + "  ")
                yield f"{indent}- {first.removeprefix(indent + '  ')}"
                yield from rest
        case _:
            yield indent + _scalar(value)


def _scalar(value: object) -> str:
    match value:
        case None | bool() | int():
            return json.dumps(value)
        case float():
            return _number(value)
        case str():
            return _text(value)
        case dict() | list() | tuple() if not value:
            return json.dumps(value)
    raise TypeError(f"{type(value).__name__} is no value of JSON")


def _number(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    digits, exponent, power = repr(value).partition("e")
    # Without a dot, readers of YAML 1.1 take 1e-05 for text.
    return digits + ("" if "." in digits else ".0") + exponent + power


def _text(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
