"""What -o json and -o yaml print is what the agent answered, to any reader of these formats."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from remus_agent.cli.output import as_json, as_yaml, entry, message

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_yaml_means_the_same_as_json(value: Any) -> None:
    assert yaml.safe_load(as_yaml(value)) == value
    assert json.loads(as_json(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "a ",
            " a",
            "-",
            "- a",
            "? a",
            "a: b",
            "a:",
            ":a",
            "a #b",
            "#a",
            "&a",
            "*a",
            "!a",
            "%a",
            "@a",
            "`a`",
        ),
        *(
            "true",
            "False",
            "YES",
            "no",
            "On",
            "off",
            "y",
            "N",
            "null",
            "~",
            "=",
            "<<",
            ".inf",
            ".nan",
            "1",
            "1.5",
            "0x1",
        ),
        *(
            "1e3",
            "1_000",
            "12:30:45",
            "2026-01-02",
            "---",
            "...",
            "a\nb",
            "\x85",
            "\u2028",
            "\ufeff",
            "\ud800",
            "\x1b[2J",
        ),
        *(
            '"a"',
            "'a'",
            "[a]",
            "{a}",
            "|",
            ">",
            "a, b",
            "a|b",
            "0d4a3c1e-8b61",
            "redis1",
            "beta.example.net",
            "/run/x y",
        ),
    ],
    ids=ascii,
)
def test_text_stays_text(text: str) -> None:
    assert yaml.safe_load(as_yaml({"a": text})) == {"a": text}
    assert yaml.safe_load(as_yaml({text: ["b"]})) == {text: ["b"]}


def test_it_is_block_style() -> None:
    value = {
        "domains": [
            {"domain": "redis1", "disks": [], "seeding": None},
            {"domain": "a b", "nested": {"x": [[1, 2], {}]}},
        ],
        "left": 1e-05,
        "since": "2026-01-02T03:04:05Z",
    }
    assert as_yaml(value) == (
        "domains:\n- domain: redis1\n  disks: []\n  seeding: null\n- domain: a b\n  nested:\n    x:\n    - - 1\n      - 2\n"
        '    - {}\nleft: 1.0e-05\nsince: "2026-01-02T03:04:05Z"'
    )


def test_entries_are_lines_of_json_and_one_list_of_yaml() -> None:
    found = [{"id": 1, "detail": {}}, {"summary": {"a": [1]}}]
    assert [json.loads(entry(one, "json")) for one in found] == found
    assert yaml.safe_load("\n".join(entry(one, "yaml") for one in found)) == found


def test_messages_beside_the_results() -> None:
    assert message({"error": {"code": "x"}}, "json") == '{"error": {"code": "x"}}'
    several = message({"summary": {"bytes": 1}}, "yaml") + "\n" + message({"error": {"code": "x"}}, "yaml")
    assert yaml.safe_load(several) == {"summary": {"bytes": 1}, "error": {"code": "x"}}


def test_what_json_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError, match="set is no value of JSON"):
        as_yaml({"a": {1}})
