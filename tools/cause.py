"""The lines of a failed stage's output that say why: what a person would look for first, short enough for the end of a log."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
FRAME = re.compile(r"^\s*│ ?")
"""Molecule draws a line beside what its commands print."""
TEST = re.compile(r"^(FAILED|ERROR) \S+::")
TASK = re.compile(r"^(fatal|failed): \[")
KEY = re.compile(r"^ {4}(\w+):")
TELLING = ("msg", "stderr", "module_stderr", "reason")
"""What a task's result has to say, of all that Ansible prints of it as YAML."""
WIDTH = 200


def cause(output: Sequence[str], lines: int = 8) -> list[str]:
    """At most so many lines: tests that failed, else the last task that failed with what it said, else the last lines.

    output: the lines of pytest, Ansible, molecule or any other command, colours and frames included."""
    said = [FRAME.sub("", COLOUR.sub("", line)).rstrip() for line in output]
    said = [line for line in said if line]
    tests = [line for line in said if TEST.match(line)]
    tasks = [number for number, line in enumerate(said) if TASK.match(line)]
    if tests:
        found = tests[-lines:]
    elif tasks:
        found = [said[tasks[-1]], *list(_told(said[tasks[-1] + 1 :]))[-lines + 1 :]]
    else:
        found = said[-lines:]
    return [line[:WIDTH] for line in found]


def _told(after: Sequence[str]) -> Iterator[str]:
    """Of the lines after a failed task's first: those of its result that tell something."""
    telling = False
    for line in after:
        if not line.startswith(" "):
            return
        if key := KEY.match(line):
            telling = key[1] in TELLING
        if telling:
            yield line
