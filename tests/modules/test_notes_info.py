"""remus_notes_info: what an agent has noted as about to run, as the agent itself writes it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from remus_agent.adapters.journal.guests import GuestFiles
from remus_agent.store_ports import GuestRecord
from tests.modules.conftest import RunModule

RUNS = GuestRecord("web1", "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001", "primary", "alpha", 3, True, 100, 1 << 20)
WORD = "alpha is off (pdu: outlet 3 off)"


def note(folder: Path, *records: GuestRecord) -> None:
    """Have an agent save them."""
    for record in records:
        asyncio.run(GuestFiles(folder / "guests").save(record))


def test_what_was_about_to_run(run_module: RunModule, tmp_path: Path) -> None:
    by_witness = replace(RUNS, name="db1", starting="db1--incoming-89abcdef")
    waits = replace(RUNS, name="web2", role="active", override=WORD, starting="web2--incoming-01234567", until=99.5)
    note(tmp_path, RUNS, waits, by_witness)
    result = run_module("remus_notes_info", state=str(tmp_path))
    assert result["unreadable"] == []
    assert result["starting"] == [
        {"name": "db1", "peer": "alpha", "working_name": "db1--incoming-89abcdef", "word": None},
        {"name": "web2", "peer": "alpha", "working_name": "web2--incoming-01234567", "word": WORD},
    ]


def test_nothing_was_noted_yet(run_module: RunModule, tmp_path: Path) -> None:
    assert run_module("remus_notes_info", state=str(tmp_path)) == {"changed": False, "starting": [], "unreadable": []}


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"{"])
def test_one_that_cannot_be_read_is_named_and_hides_no_other(
    run_module: RunModule, tmp_path: Path, content: bytes
) -> None:
    note(tmp_path, replace(RUNS, starting="web1--incoming-01234567"))
    path = tmp_path / "guests" / "bad.json"
    path.write_bytes(content)
    (tmp_path / "guests" / ".web1.json.new").write_text("{")  # what a crash has left
    result = run_module("remus_notes_info", state=str(tmp_path))
    assert [one["path"] for one in result["unreadable"]] == [str(path)]
    assert result["unreadable"][0]["problem"]
    assert [one["name"] for one in result["starting"]] == ["web1"]


def test_a_folder_that_cannot_be_read_is_named(run_module: RunModule, tmp_path: Path) -> None:
    (tmp_path / "guests").write_text("no folder")
    (found,) = run_module("remus_notes_info", state=str(tmp_path))["unreadable"]
    assert found["path"] == str(tmp_path / "guests")
    assert "Not a directory" in found["problem"]
