"""What the agent answered, as text for people."""

from __future__ import annotations

import itertools
import json
import os
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from remus_agent.observe.event_kinds import PROBLEMS

_KIB: Final = 1024
_BELOW: Final = "    "
_NARROW: Final = 24
"""Columns, of which a text is better not broken into fewer."""


def size(count: float) -> str:
    """Bytes as people read them: `64.0 KiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < _KIB or unit == "GiB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= _KIB
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """Seconds as people read them: `0.3s`, `12s`, `3m05s`, `2h10m`, `4d03h`."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def text(value: object) -> str:
    """One cell: `-` for what is not known, and nothing that could steer a terminal."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(c if c.isprintable() else "?" for c in str(value))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], columns: int | None = None) -> str:
    """Columns under headings, as wide as their longest cell; the last one is not padded. columns: of the terminal (None: look; 0:
    there is none, and lines are as long as they are). Where that is too narrow the last column goes on below itself, or what has
    no room stands below its row, by name."""
    cells = [list(headings), *([text(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    ends = list(itertools.accumulate(width + 2 for width in widths))  # each with the gap behind it
    room = _columns() if columns is None else columns
    if not room or ends[-1] - 2 <= room:
        return "\n".join(_padded(row, widths) for row in cells)
    kept = max(1, sum(end - 2 <= room for end in ends))
    left = room - ends[-2] if len(ends) > 1 else room
    wraps = left >= max(_NARROW, len(headings[-1]))
    below = textwrap.TextWrapper(room, initial_indent=_BELOW, subsequent_indent=_BELOW, break_on_hyphens=False)
    lines = []
    for row in cells:
        if wraps:
            first, *more = textwrap.wrap(row[-1], left, break_on_hyphens=False) or [""]
            lines += [_padded([*row[:-1], first], widths), *(" " * ends[-2] + line for line in more)]
            continue
        lines.append(_padded(row[:kept], widths))
        if row is not cells[0]:
            rest = zip(headings[kept:], row[kept:], strict=True)
            lines += below.wrap("  ".join(f"{name.lower()}: {cell}" for name, cell in rest if cell != "-"))
    return "\n".join(lines)


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()


def _columns() -> int:
    """Of the terminal that standard output is; 0: it is none, or does not say."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return 0


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """`name: value` lines with aligned values."""
    known = [(name, text(value)) for name, value in pairs]
    width = max((len(name) for name, _ in known), default=0) + 1
    return "\n".join(f"{name + ':':<{width}} {value}" for name, value in known)


def domains(found: Sequence[Mapping[str, Any]]) -> str:
    """The list of domains."""
    if not found:
        return "No domain on this host is known to the agent."
    return table(
        (
            "DOMAIN",
            "ROLE",
            "STATE",
            "PEER",
            "EPOCH",
            "ACKED",
            "COMMITTED",
            "HELD",
            "LAST ACK",
            "DOWN",
            "REASON",
        ),
        (
            (
                one.get("domain"),
                one.get("role"),
                _state(one),
                one.get("peer"),
                one.get("epoch"),
                one.get("acked_epoch"),
                one.get("committed_epoch"),
                size(one.get("held_bytes") or 0),
                _ago(one.get("last_ack_age")),
                f"{one.get('down_ms_last') or 0:.1f} ms",
                one.get("reason"),
            )
            for one in found
        ),
    )


def status(one: Mapping[str, Any]) -> str:
    """One domain in full."""
    since = one.get("since")
    held = f"{size(one.get('held_bytes') or 0)} in {one.get('held_packets') or 0} frames"
    if one.get("dropped_packets"):
        held += f", {one['dropped_packets']} frames dropped"
    pairs: list[tuple[str, object]] = [
        ("domain", one.get("domain")),
        ("role", one.get("role")),
        ("state", _state(one) + (f" for {duration(since)}" if since is not None else "")),
    ]
    if one.get("reason"):
        pairs.append(("reason", one["reason"]))
    problem = PROBLEMS.get(str(one.get("state")))
    if problem is not None:
        pairs.append(("what to do", f"{problem.means}: see {problem.runbook}"))
    if one.get("role") != "none":
        interval = one.get("interval_ms")
        pairs += [
            ("peer", one.get("peer")),
            ("session", one.get("session")),
            ("generation", one.get("generation")),
            ("epoch", one.get("epoch")),
            ("acknowledged", one.get("acked_epoch")),
            ("committed", one.get("committed_epoch")),
            ("last acknowledgement", _ago(one.get("last_ack_age"))),
        ]
        if one.get("role") == "primary":
            pairs += [
                ("held output", held),
                ("interval", f"{interval} ms" if interval else "as fast as it goes"),
                (
                    "last checkpoint",
                    f"{one.get('pages_last')} pages, down {one.get('down_ms_last') or 0:.1f} ms",
                ),
                *((f"disk {text(disk.get('vdev'))}", _disk(disk)) for disk in one.get("disks") or ()),
            ]
        pairs += [(f"member {text(guest.get('domain'))}", _member(guest, one)) for guest in one.get("members") or ()]
        if one.get("cost"):
            pairs.append(("cost on this host", _cost(one["cost"])))
        pairs += [
            (f"of it {text(guest.get('domain'))}", _cost(guest["cost"]))
            for guest in one.get("members") or ()
            if guest.get("cost")
        ]
    return facts(pairs)


def _cost(cost: Mapping[str, Any]) -> str:
    """Processor time and memory, and what they are for."""
    shown = f"{duration(cost.get('cpu_seconds') or 0)} of processor time, {size(cost.get('memory_bytes') or 0)}"
    parts = [
        f"{text(each.get('part'))} {duration(each.get('cpu_seconds') or 0)}, {size(each.get('memory_bytes') or 0)}"
        for each in cost.get("parts") or ()
    ]
    return shown + (f" ({'; '.join(parts)})" if parts else "")


def _member(guest: Mapping[str, Any], group: Mapping[str, Any]) -> str:
    """One guest of a group; figures where its checkpoints are taken."""
    memory = size((guest.get("memory_kib") or 0) * _KIB)
    if group.get("role") != "primary":
        return memory
    return f"{memory}, last checkpoint {guest.get('pages_last')} pages, down {guest.get('down_ms_last') or 0:.1f} ms"


def agent(answer: Mapping[str, Any]) -> str:
    """The agent and its peers."""
    head = facts(
        (name, answer.get(key))
        for name, key in (
            ("host", "host"),
            ("version", "version"),
            ("release", "release"),
            ("Xen", "xen_version"),
        )
    )
    if "tls" in answer:
        head += "\n" + facts([("TLS", _tls(answer["tls"]))])
    if "watchdog" in answer:
        head += "\n" + facts([("watchdog", _watchdog(answer["watchdog"]))])
    if answer.get("shared_cost"):
        head += "\n" + facts([("shared by all guests", _cost(answer["shared_cost"]))])
    peers = answer.get("peers") or {}
    if not peers:
        return head + "\nNo peers are configured."
    return (
        head
        + "\n\n"
        + table(
            ("PEER", "ADDRESS"),
            ((name, peer.get("address")) for name, peer in sorted(peers.items())),
        )
    )


def _tls(found: Mapping[str, Any] | None) -> str:
    """The certificate of this host, or why there is none to show."""
    if found is None:
        return "off, connections are plain TCP"
    if "error" in found:
        return str(found["error"])
    return f"certificate until {found.get('expires')}, {found.get('days_left')} days left"


def _watchdog(found: Mapping[str, Any] | None) -> str:
    """Whether this host resets itself when its agent does not come back."""
    if found is None:
        return "off"
    if found.get("problem"):
        return f"{'armed' if found.get('armed') else 'NOT ARMED'}: {found['problem']}"
    if found.get("armed"):
        guests = ", ".join(found.get("guests") or ())
        return f"armed, resets this host {found.get('seconds')} s after its agent is gone; owner of {guests}"
    return "not armed, this host is the owner of no guest that it protects"


def switchover(answer: Mapping[str, Any], *, trial: bool) -> str:
    """Where a domain runs by now, or could."""
    domain, peer = text(answer.get("domain")), text(answer.get("to"))
    if trial:
        return f"{domain} could be moved to {peer} now."
    return (
        f"{domain} runs on {peer}, and is gone from this host.\n"
        f"next: without a witness protect it there (remusctl protect {domain} --peer ...), or run the playbook switchover,"
        " which does both;\n  with a witness it is protected there by itself, unless [automatic] there says otherwise"
    )


def probe(answer: Mapping[str, Any], domain: str, peer: str) -> str:
    """Whether a protection would be possible, and what is against it."""
    if answer.get("ok"):
        lines = [f"{text(domain)} can be protected on {text(peer)}."]
    else:
        lines = [f"{text(domain)} cannot be protected on {text(peer)}:"]
        for reason in answer.get("reasons") or ():
            lines.append(f"  {text(reason.get('code'))}: {text(reason.get('message'))}")
            if reason.get("hint"):
                lines.append(f"    next: {text(reason['hint'])}")
    found = answer.get("facts") or {}
    if found:
        lines += ["", facts(sorted(found.items()))]
    return "\n".join(lines)


def fence_check(answer: Mapping[str, Any]) -> str:
    """What a fence agent says."""
    shown = facts(
        [
            ("host", answer.get("host")),
            ("agent", f"{answer.get('agent')}, which works"),
            ("power", answer.get("power")),
            ("required before activation", answer.get("required")),
        ]
    )
    unknown = answer.get("unknown_options") or ()
    if unknown:
        shown += "\n" + facts([("options that it does not know and ignores", ", ".join(unknown))])
    return shown


def forgotten(answer: Mapping[str, Any]) -> str:
    """The record that was removed, or that there was none."""
    record = answer.get("record")
    if record is None:
        return f"The witness has no record of {text(answer.get('uuid'))}: nothing was changed."
    name, backup = text(record.get("name")), record.get("backup")
    shown = f"The record of {name} is removed:\n" + facts(
        [
            ("uuid", answer.get("uuid")),
            *((key, record.get(key)) for key in ("owner", "generation", "state", "backup", "reason")),
            ("changed by", record.get("changed_by")),
        ]
    )
    if backup is not None:
        shown += f"\nnext: if {text(backup)} still has a copy of it: remusctl unprotect {name} --force there"
    return shown


def event(one: Mapping[str, Any]) -> str:
    """One event on one line; below it, where somebody has to do something about it, what it means and where to read how."""
    epoch = one.get("epoch")
    parts = [
        str(one.get("id")),
        text(one.get("time")),
        text(one.get("domain")),
        text(one.get("event")),
        *([f"epoch={epoch}"] if epoch is not None else []),
        *(f"{text(name)}={_fact(value)}" for name, value in (one.get("detail") or {}).items()),
    ]
    line = "  ".join(parts)
    if one.get("runbook"):
        line += f"\n    {text(one.get('means'))}: see {text(one['runbook'])}"
    return line


def error(found: Mapping[str, Any], program: str = "remusctl") -> str:
    """An error with where it happened, what was left behind and what to do next."""
    where = ", ".join(
        f"{name}{text(found[key])}"
        for key, name in (("operation", ""), ("domain", "domain "), ("epoch", "epoch "))
        if found.get(key) is not None
    )
    first, *more = str(found.get("message") or "-").split("\n")
    lines = [f"{program}: {where + ': ' if where else ''}{text(first)}", *(f"  {text(line)}" for line in more)]
    if found.get("left"):
        lines.append(f"  state left: {text(found['left'])}")
    if found.get("hint"):
        lines.append(f"  next: {text(found['hint'])}")
    return "\n".join(lines)


def _fact(value: object) -> str:
    shown = text(value if isinstance(value, str | int | float | None) else json.dumps(value))
    return json.dumps(shown, ensure_ascii=False) if " " in shown else shown


def _state(one: Mapping[str, Any]) -> str:
    seeding = one.get("seeding")
    state = text(one.get("state"))
    if seeding and seeding.get("total"):
        state += f" {100 * seeding['done'] // seeding['total']}%"
    return state


def _disk(disk: Mapping[str, Any]) -> str:
    shown = f"{disk.get('mode')}, {size(disk.get('size') or 0)}"
    if disk.get("problem"):
        return f"{shown}; {disk['problem']}"
    if disk.get("mode") == "copying" and disk.get("total"):
        return f"{shown}, {100 * disk['done'] // disk['total']}% copied, {size(disk.get('sent') or 0)} sent"
    if disk.get("mode") == "replicating":
        return f"{shown}, {size(disk.get('bytes_last') or 0)} in the last epoch"
    return shown


def _ago(seconds: float | None) -> str:
    return "-" if seconds is None else f"{duration(seconds)} ago"
