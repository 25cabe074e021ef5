"""The exit codes of remusctl are the same in its help, in the document and in the code."""

from __future__ import annotations

import re
from pathlib import Path

from remus_agent.cli import arguments, main, screen, stream, stream_arguments
from remus_agent.cli.client import AgentUnavailable
from remus_agent.protocol.control import exit_codes
from remus_agent.protocol.stream_tools.walk import CutBetweenEpochs, CutInsideEpoch

ROOT = Path(__file__).resolve().parents[3]


def in_help(text: str) -> set[int]:
    """`Exit codes: 0 done, 1 failed, 14 to 16 ...`"""
    found = re.findall(r"(?:codes: |, )(\d+)(?: to (\d+))? ", text)
    return {code for first, last in found for code in range(int(first), int(last or first) + 1)}


def in_document(text: str) -> dict[int, str]:
    """The rows of the table below *Exit codes*."""
    rows = re.findall(r"^\| ([\d, ]+) \| (.+) \|$", text.partition("## Exit codes")[2], re.MULTILINE)
    return {int(code): meaning for codes, meaning in rows for code in codes.split(", ")}


def in_code() -> set[int]:
    """Of every error, of what tools end with, and of an interrupt."""
    errors = set(exit_codes().values()) | {
        AgentUnavailable.exit_code,
        CutBetweenEpochs.exit_code,
        CutInsideEpoch.exit_code,
    }
    return errors | {0, stream.DIFFERENT, main.INTERRUPTED} | {128 + number for number in screen.ENDS}


DOCUMENT = in_document((ROOT / "docs" / "remusctl.md").read_text())


def test_the_help_names_all_of_them() -> None:
    assert in_help(arguments.EPILOG) == in_code()


def test_the_document_names_all_of_them() -> None:
    assert set(DOCUMENT) == in_code()


def test_the_help_of_the_stream_tools_names_some_of_them() -> None:
    codes = in_help(stream_arguments.EPILOG)
    assert codes < in_code()
    assert {stream.DIFFERENT, CutBetweenEpochs.exit_code, CutInsideEpoch.exit_code} < codes


def test_the_same_words_stand_for_a_code_in_both() -> None:
    """One word at least, so that two codes that are mixed up are noticed."""
    for code, meaning in DOCUMENT.items():
        said = re.search(rf"(?:codes: |, ){code} ([^,]+?)(?=, ?\d+ |, |\.|$)", arguments.EPILOG)
        if said is None:
            assert code in (14, 15, 16)  # of the stream tools
            continue
        words = {word.strip("(),:").lower() for word in said[1].split()} - {"a", "the", "or", "is", "no", "was"}
        known = {word.strip("(),:;").lower() for word in meaning.split()}
        assert words & known, (code, said[1], meaning)


def test_a_missing_code_is_noticed() -> None:
    assert in_help("Exit codes: 0 done, 4 no such domain, 14 to 16 see, 130 interrupted.") == {0, 4, 14, 15, 16, 130}
    assert in_document("## Exit codes\n| code | meaning |\n| --- | --- |\n| 0 | done |\n| 14, 15 | x |\n") == {
        0: "done",
        14: "x",
        15: "x",
    }
