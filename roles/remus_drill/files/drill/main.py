"""The command line: what the role calls on the controller.

    remus_drill.py start FOLDER          the client and the looks at the agents; returns once they work
    remus_drill.py mark FOLDER PHASE     a phase begins now
    remus_drill.py settle FOLDER SECONDS wait until the guest is protected and answers; prints what is missing, as JSON
    remus_drill.py stop FOLDER           end what `start` began
    remus_drill.py report FOLDER         write report.html, report.json, junit.xml; prints the summary's words, as JSON

Also for people: `report` writes a drill's report again from its folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from drill import folder, junit, page, record, report, watch

PROGRAM = Path(__file__).resolve().parent.parent / "remus_drill.py"
PATIENCE = 90.0


def arguments() -> argparse.ArgumentParser:
    """The parser."""
    made = argparse.ArgumentParser(
        prog="remus_drill.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = made.add_subparsers(dest="verb", required=True)
    for name in ("start", "watch", "client", "mark", "settle", "stop", "report"):
        verb = verbs.add_parser(name)
        verb.add_argument("folder", type=Path)
        if name == "mark":
            verb.add_argument("phase", choices=folder.PHASES)
        if name == "settle":
            verb.add_argument("seconds", type=float)
    return made


def write(where: Path) -> dict[str, object]:
    """The three files of a report; what was said."""
    run = record.read(where)
    said = report.summary(run)
    (where / "report.json").write_text(json.dumps(said, indent=2) + "\n")
    (where / "junit.xml").write_text(junit.text(said))
    (where / "report.html").write_text(page.text(run, said))
    return said


def main(words: list[str] | None = None) -> int:
    """0 done; 1 not, with one line on standard error."""
    options = arguments().parse_args(words)
    where = options.folder.resolve()
    program = [sys.executable, str(PROGRAM)]
    try:
        if options.verb == "start":
            watch.start(where, program)
        elif options.verb == "watch":
            return watch.watch(where, program)
        elif options.verb == "client":
            return watch.run_client(where)
        elif options.verb == "mark":
            folder.mark(where, options.phase)
        elif options.verb == "settle":
            sys.stdout.write(json.dumps(watch.settle(where, options.seconds)) + "\n")
        elif options.verb == "stop":
            if not watch.stop(where, PATIENCE):
                raise watch.NotReady(
                    f"what watches the drill in {where} does not end. Next: see {where}/watching for its process id"
                )
        else:
            said = write(where)
            names = ("ok", "violated", "protected", "problem", "missing", "next", "guarantees")
            sys.stdout.write(json.dumps({name: said[name] for name in names}) + "\n")
    except (watch.NotReady, OSError, ValueError, KeyError) as error:
        kind = (
            ""
            if isinstance(error, watch.NotReady | OSError)
            else f"{where} is no folder of a drill: {type(error).__name__}: "
        )
        sys.stderr.write(f"{kind}{error}\n")
        return 1
    return 0
