"""A drill's report as one page: everything is in it, nothing is fetched, nothing runs. Fit for a phone, in light and in dark."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from drill import plots, report, verdicts
from drill.figures import PARTS, amount, seconds
from drill.record import Run

BADGES = {verdicts.KEPT: "kept", verdicts.VIOLATED: "violated", verdicts.NOT_LOOKED_AT: "none"}
ROWS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("Length", lambda part: seconds(part["seconds"])),
    ("Questions asked", lambda part: amount(part["asked"])),
    ("of them answered", lambda part: amount(part["answered"])),
    ("Latency, median", lambda part: seconds(part["latency_median"])),
    ("Latency, 99 of 100 below", lambda part: seconds(part["latency_p99"])),
    ("Latency, longest", lambda part: seconds(part["latency_max"])),
    ("Longest time without an answer", lambda part: seconds(part["longest_wait"])),
    ("Epochs", lambda part: amount(part["epochs"])),
    ("Pause, median", lambda part: seconds(part["pause_median"])),
    ("Pause, longest", lambda part: seconds(part["pause_max"])),
    ("Dirty pages, median", lambda part: amount(part["pages_median"])),
    ("Bytes of an epoch, median", lambda part: amount(part["bytes_median"], "B")),
    ("Most output held", lambda part: amount(part["held_max"], "B")),
)
KEYS = {
    "good": "protected",
    "copy": "keeps a good copy",
    "work": "being protected",
    "held": "output held, or the primary not heard",
    "open": "runs alone, output open",
    "dead": "host answers, its agent does not",
    "away": "host does not answer",
    "other": "another state",
}


def text(run: Run, said: dict[str, Any]) -> str:
    """The page. said: of report.summary."""
    title = f"Drill on {said['guest']}: {said['what']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(said["time"])}, fault <code>{escape(said["fault"])}</code></p>',
        _verdict(said),
        f"<dl>{_facts(said)}</dl>",
        "<h2>Guarantees</h2>",
        _guarantees(said),
        "<h2>What was seen</h2>",
        _plots(run),
        "<h2>Figures</h2>",
        _figures(said),
        "<h2>What happened</h2>",
        _moments(report.timeline(run)),
        _events(said),
        "<h2>How it was looked at</h2>",
        f'<p class="soft">{escape(HOW)}</p>',
    ]
    style = Path(__file__).with_name("page.css").read_text()
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _verdict(said: dict[str, Any]) -> str:
    kept = [one["name"] for one in said["guarantees"] if one["verdict"] == verdicts.KEPT]
    words = []
    if said["violated"]:
        words.append(f"<p><strong>Violated: {escape(', '.join(said['violated']))}.</strong></p>")
    else:
        seen = f"{', '.join(kept)} kept; none violated" if kept else "No guarantee violated, none was put to the test"
        words.append(f"<p><strong>{escape(seen)}.</strong></p>")
    if said["problem"]:
        words.append(f"<p>The drill itself did not go as planned: {escape(said['problem'])}</p>")
    if said["protected"]:
        words.append(
            f"<p>{escape(said['guest'])} is protected again, and runs on {escape(str(said['owner_after']))}.</p>"
        )
    else:
        missing = "; ".join(said["missing"]) or f"{said['guest']} is not protected"
        words.append(f"<p>{escape(missing)}.</p>")
    if said["next"]:
        words.append(
            "<p>How to get there:</p><ol>" + "".join(f"<li>{escape(step)}</li>" for step in said["next"]) + "</ol>"
        )
    return f'<div class="verdict {"good" if said["ok"] else "bad"}">{"".join(words)}</div>'


def _facts(said: dict[str, Any]) -> str:
    where = f"{', '.join(said['where'])} ({said['side']})" if said["where"] else said["side"]
    undone = [
        f"{one['host']}: {'not undone, ' + one['error'] if one.get('error') else UNDONE[one['undone']]}"
        for one in said["undone"]
    ]
    powers = [f"{one['host']} was off; {one['by']} switched it on" for one in said["powers"] if one["was_off"]]
    moved = [f"after {one['at']:.1f} s from {one['from']} to {one['to']}" for one in said["moves"]]
    rows = [
        ("Broken on", where),
        ("Held for", f"{said['held_seconds']} s"),
        ("Undone", "; ".join(undone) or "nothing was begun"),
        ("Power", ", ".join(powers)),
        ("Guest moved", ", ".join(moved) or f"no, it stayed on {said['owner_before']}"),
        ("Witness", "yes" if said["witness"] else "none"),
        ("Client", said["client"]),
        ("Expected", said["expected"]),
    ]
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in rows if value)


HOW = (
    "A client outside of the hosts asked the guest and wrote down when each answer came. Both agents were asked for their state "
    "and their epochs over connections of their own. All times are the controller's. A guarantee counts as kept only where a "
    "breach would have been seen by these; what left the hosts was not recorded. What each guarantee means and rests on: "
    "docs/safety.md."
)
UNDONE = {
    "now": "by the playbook",
    "timer": "by the host's own timer",
    "boot": "the host has booted anew",
    "nothing": "nothing was left",
}


def _guarantees(said: dict[str, Any]) -> str:
    rows = [
        f'<tr><td><strong>{one["name"]}</strong> <span class="badge {BADGES[one["verdict"]]}">{one["verdict"]}</span></td>'
        f"<td>{escape(one['title'])}</td><td>{escape(one['evidence'])}</td></tr>"
        for one in said["guarantees"]
    ]
    head = "<thead><tr><th>Verdict</th><th>Guarantee</th><th>Evidence</th></tr></thead>"
    return f'<table class="guarantees">{head}<tbody>{"".join(rows)}</tbody></table>'


def _plots(run: Run) -> str:
    epochs = [(one.at - run.start, one) for one in run.epochs]
    held = [(one.asked - run.start, float(one.held)) for one in run.looks if one.role == "primary"]
    found = [
        _figure(
            "Client latency",
            "Each dot is a question at the moment it was asked; red ones at the top were never answered. Below: epochs, and what "
            "each agent said of the guest.",
            plots.both(lambda width: plots.latency(run, width)),
            _keys(run),
        )
    ]
    for title, caption, name, points, tell, steps in (
        (
            "Pause of an epoch",
            "How long the guest stood.",
            "pause",
            [(at, one.down_ms / 1e3) for at, one in epochs],
            _time,
            False,
        ),
        (
            "Dirty pages",
            "Of 4 KiB, that an epoch carried.",
            "pages",
            [(at, float(one.pages)) for at, one in epochs],
            amount,
            False,
        ),
        (
            "Bytes",
            "That an epoch sent, disks included.",
            "bytes",
            [(at, float(one.sent)) for at, one in epochs],
            _bytes,
            False,
        ),
        ("Held output", "What the guest had sent and nobody had seen yet.", "held", held, _bytes, True),
    ):
        found.append(_series(run, title, caption, name, points, tell, steps))
    return "".join(found)


def _time(value: float) -> str:
    return "0" if value == 0 else f"{value * 1e3:g} ms" if value < 1 else f"{value:g} s"


def _bytes(value: float) -> str:
    return "0" if value == 0 else amount(value, "B")


def _series(
    run: Run, title: str, caption: str, name: str, points: list[plots.Point], tell: Callable[[float], str], steps: bool
) -> str:
    if not points or not any(value for _, value in points):
        return _figure(title, "Nothing was measured." if not points else "None in any look.", "", "")

    def make(width: int) -> str:
        return plots.series(run, width, name, f"{title} over time", points, tell, steps=steps)

    return _figure(title, caption, plots.both(make), "")


def _figure(title: str, caption: str, plot: str, keys: str) -> str:
    return f"<figure><h3>{escape(title)}</h3><figcaption>{escape(caption)}</figcaption>{plot}{keys}</figure>"


def _keys(run: Run) -> str:
    said = {look.state if look.state is not None else "no agent" if look.reached else "no answer" for look in run.looks}
    used = {plots.STATES.get(one, "other") for one in said}
    keys = [("fault", "the fault is there"), ("client", "answered"), ("bad", "not answered")]
    keys += [(css, words) for css, words in KEYS.items() if css in used]
    return (
        '<ul class="keys">'
        + "".join(f'<li><span class="key {css}"></span>{words}</li>' for css, words in keys)
        + "</ul>"
    )


def _figures(said: dict[str, Any]) -> str:
    by_name = {part["name"]: part for part in said["figures"]}
    head = "".join(f"<th>{'fault' if name == 'during' else name}</th>" for name in PARTS)
    rows = [
        f"<tr><th>{escape(title)}</th>" + "".join(f"<td>{tell(by_name[name])}</td>" for name in PARTS) + "</tr>"
        for title, tell in ROWS
    ]
    return f'<table class="figures"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _moments(moments: list[tuple[float, str]]) -> str:
    rows = [f"<li><span>{at:.1f} s</span><div>{escape(words)}</div></li>" for at, words in moments]
    return f'<ol class="moments">{"".join(rows)}</ol>'


def _events(said: dict[str, Any]) -> str:
    if not said["events"]:
        return ""
    rows = []
    for one in said["events"]:
        detail = " ".join(f"{name}={value}" for name, value in one["detail"].items())
        rows.append((one["at"], f"{one['host']}: {one['event']} {detail}".rstrip()))
    return f"<details><summary>{len(rows)} events of the agents</summary>{_moments(rows)}</details>"
