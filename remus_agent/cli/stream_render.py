"""What the stream tools found, as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from remus_agent.cli.render import facts, size, table, text

VERDICTS: Final = {
    "good": "good",
    "cut-between": "no END: ends between epochs, after epoch {epochs}",
    "cut-inside": "cut off inside an epoch; complete before that: {epochs}",
    "damaged": "damaged",
}
_RANGES: Final = 20
"""Ranges of pfns that are shown of one kind; JSON has them all."""
_RECORD: Final = "{:>8}  {:>14}  {:<5}  {:<24}  {:>10}  {:>6}  {}"
_EPOCH: Final = "{:>8}  {:>14}  {:>14}  {:>8}  {:>10}  {:>10}"
RECORD_HEADING: Final = _RECORD.format("RECORD", "OFFSET", "LAYER", "TYPE", "LENGTH", "EPOCH", "PAGES")
EPOCH_HEADING: Final = _EPOCH.format("EPOCH", "OFFSET", "BYTES", "RECORDS", "PAGES", "ZERO")


def verdict(found: Mapping[str, Any]) -> str:
    """Whether a stream is good, and what it is."""
    return facts([("stream", VERDICTS[found["verdict"]].format(epochs=found["epochs"])), *_whole(found)])


def inspection(found: Mapping[str, Any]) -> str:
    """Everything counted in a stream."""
    zero = found["zero_pages"]
    pages = found["epoch_pages"]
    head = facts(
        [
            ("stream", VERDICTS[found["verdict"]].format(epochs=found["epochs"])),
            *_whole(found),
            ("zero pages", f"{zero} ({100 * zero // found['pages']}%)" if found["pages"] else zero),
            ("pages an epoch", f"{text(pages['least_pages'])} to {text(pages['most_pages'])}"),
            ("page types", ", ".join(f"{count} {name}" for name, count in found["pages_by_type"].items())),
        ]
    )
    rows = [(one["layer"], one["type"], one["records"], size(one["bytes"])) for one in found["records_by_type"]]
    return head + "\n\n" + table(("LAYER", "TYPE", "RECORDS", "SIZE"), rows)


def record(one: Mapping[str, Any]) -> str:
    """One record on one line; of PAGE_DATA how many pages have content, of how many."""
    pages = f"{one['pages']} of {one['pfns']}" if "pages" in one else ""
    cells = (one["record"], one["offset"], one["layer"], one["type"], one["length"], one["epoch"])
    return _RECORD.format(*map(text, cells), pages).rstrip()


def epoch(one: Mapping[str, Any]) -> str:
    """One epoch on one line."""
    return _EPOCH.format(*(text(one[key]) for key in ("epoch", "start", "size", "records", "pages", "zero")))


def difference(found: Mapping[str, Any]) -> str:
    """What differs between two streams."""
    head = facts((f"{name} is", f"{found[name]['file']}, epoch {found[name]['epoch']}") for name in ("a", "b"))
    if found["same"]:
        return head + "\n\nNo difference."
    parts = [head, _memory(found["memory"])]
    if found["changes"]:
        rows = [(one["section"], one["name"], one["a"], one["b"]) for one in found["changes"]]
        parts.append(table(("SECTION", "NAME", "A", "B"), rows))
    return "\n\n".join(parts)


def written(found: Mapping[str, Any]) -> str:
    """What convert or cut wrote."""
    pairs = [("written", found["file"]), ("epoch", found["epoch"]), ("size", size(found["bytes"]))]
    if found.get("left_out"):
        pairs.append(("left out", f"{size(found['left_out'])} of an epoch that is not complete"))
    return facts(pairs)


def _whole(found: Mapping[str, Any]) -> Sequence[tuple[str, object]]:
    pairs: list[tuple[str, object]] = [
        ("guest", f"{text(found['guest'])} ({text(found['type'])})"),
        ("written by", f"Xen {text(found['xen'])}, libxc version {text(found['libxc_version'])}"),
        ("epochs", found["epochs"]),
        ("records", found["records"]),
        ("pages", f"{found['pages']} with content"),
        ("size", f"{size(found['bytes'])} ({found['bytes']} bytes)"),
    ]
    if "xxh3_128" in found:
        pairs.append(("xxh3_128", found["xxh3_128"]))
    return pairs


def _memory(memory: Mapping[str, Any]) -> str:
    lines = [f"memory: {memory['pages_a']} pages in a, {memory['pages_b']} in b"]
    for kind, words in (("differ", "differ"), ("only_a", "only in a"), ("only_b", "only in b")):
        found: Sequence[Sequence[int]] = memory[kind]
        if not found:
            continue
        lines.append(f"  {memory[f'{kind}_pages']} {words}, in {len(found)} ranges of pfns:")
        shown = [f"{first:#x}" + (f"-{last:#x}" if last != first else "") for first, last in found[:_RANGES]]
        lines.append("    " + " ".join(shown))
        if len(found) > _RANGES:
            lines.append(f"    and {len(found) - _RANGES} more (all of them: -o json)")
    if len(lines) == 1:
        lines.append("  no difference")
    return "\n".join(lines)
