"""Every kind of event that the code can note is explained, and every explanation leads somewhere."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from remus_agent.machines import backup, primary
from remus_agent.observe.event_kinds import HARMLESS, PROBLEMS, explained
from remus_agent.services.requests import handlers
from remus_agent.services.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
STATES = {state.value for machine in (primary, backup) for state in machine.State}


def anchors(text: str) -> set[str]:
    """Those of a document's headings, as GitHub and most renderers make them."""
    found = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


def texts(node: ast.expr, function: ast.AST) -> Iterator[str]:
    """What an expression can be: a text, one of two, a state, or a name that is given such a text in the same function."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp():
            yield from texts(node.body, function)
            yield from texts(node.orelse, function)
        case ast.Attribute(attr="value", value=ast.Attribute(attr="then")):
            yield from STATES
        case ast.Name(id=name):
            given = [
                inner.value
                for inner in ast.walk(function)
                if isinstance(inner, ast.Assign)
                and any(isinstance(target, ast.Name) and target.id == name for target in inner.targets)
            ]
            assert given, f"{name}, line {node.lineno}"
            for value in given:
                yield from texts(value, function)
        case _:
            pytest.fail(f"this test cannot tell what {ast.unparse(node)} can be")


def noted() -> dict[str, str]:
    """Every kind that is noted, and in which file. Events have two positional arguments: whose, and which."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "remus_agent").rglob("*.py")):
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        for function in functions:
            for call in ast.walk(function):
                if (
                    isinstance(call, ast.Call)
                    and isinstance(call.func, ast.Attribute)
                    and call.func.attr == "note"
                    and call.args[1:]
                ):
                    found |= dict.fromkeys(texts(call.args[1], function), path.name)
    return found


def test_every_kind_that_can_be_noted_is_explained_or_harmless() -> None:
    kinds = noted()
    assert len(kinds) > 60
    assert {kind: file for kind, file in kinds.items() if kind not in PROBLEMS.keys() | HARMLESS} == {}


def test_no_kind_is_explained_that_nobody_notes() -> None:
    assert (PROBLEMS.keys() | HARMLESS) - noted().keys() == set()
    assert PROBLEMS.keys() & HARMLESS == set()


@pytest.mark.parametrize("kind", PROBLEMS)
def test_the_runbook_says_what_to_do(kind: str) -> None:
    assert PROBLEMS[kind].section in anchors((ROOT / "docs" / "runbook.md").read_text())


def test_anchors() -> None:
    assert anchors("# A `b`, c-d: the backup's\n\ntext # no\n## E") == {"a-b-c-d-the-backups", "e"}


def test_what_asks_for_something_says_so() -> None:
    plain = {"id": 1, "event": "protected", "detail": {}}
    assert explained(plain) == plain
    silent = {"id": 2, "event": "silent", "detail": {}}
    assert explained(silent) == {
        **silent,
        "means": "the backup acknowledges nothing, so the guest's output is held",
        "runbook": "docs/runbook.md#a-guest-is-silent",
    }


def test_problems_alone_are_the_newest_of_all_events() -> None:
    events = [{"id": number, "event": "silent" if number % 10 == 0 else "protected"} for number in range(1, 101)]
    asked: list[tuple[int, str | None, int]] = []

    def read(since: int, domain: str | None, limit: int) -> list[dict[str, object]]:
        asked.append((since, domain, limit))
        return [one for one in events if int(str(one["id"])) > since][-limit:]

    service: Any = SimpleNamespace(settings=Settings(host="alpha"))
    answer = handlers(service, read)["events"]
    progress: Any = None
    found = asyncio.run(answer({"problems": True, "limit": 3}, progress))["events"]
    assert [one["id"] for one in found] == [80, 90, 100]
    found = asyncio.run(answer({"problems": True, "limit": 3, "since": 15}, progress))["events"]
    assert [one["id"] for one in found] == [20, 30, 40]
    found = asyncio.run(answer({"limit": 3}, progress))["events"]
    assert [(one["id"], "runbook" in one) for one in found] == [(98, False), (99, False), (100, True)]
    assert [limit for _, _, limit in asked] == [10_000, 10_000, 3]
