"""The shell completion is the one of this parser, and bash offers with it what fits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from remus_agent.cli.arguments import parser
from remus_agent.cli.main import VERBS

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools"))
import shell_completion  # noqa: E402

FAKE = """#!/bin/sh
case "$1" in
list) printf 'DOMAIN  ROLE\\nredis1  primary\\nredis2  backup\\ndb1  none\\n' ;;
agent) printf 'host: alpha\\n\\nPEER  ADDRESS\\nbeta  10.0.0.2:1\\ngamma  10.0.0.3:1\\n' ;;
esac
"""


def offered(folder: Path, *words: str) -> list[str]:
    """What bash offers when TAB is pressed behind these words, the last of which is begun."""
    fake = folder / "remusctl"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    press = 'COMP_WORDS=(remusctl "$@")\nCOMP_CWORD=$#\n_remusctl\nprintf \'%s\\n\' "${COMPREPLY[@]}"'
    script = f"source {shell_completion.TARGET}\n{press}"
    done = subprocess.run(
        ["bash", "--norc", "-u", "-c", script, "bash", *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
    )
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


def test_it_is_the_one_of_this_parser() -> None:
    assert shell_completion.TARGET.read_text() == shell_completion.completion(parser()), "run: make completion"


def test_every_command_is_offered(tmp_path: Path) -> None:
    assert set(offered(tmp_path, "")) == {*VERBS, "stream"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["un"], ["unprotect"]),
        (["status", ""], ["redis1", "redis2", "db1"]),
        (["status", "redis"], ["redis1", "redis2"]),
        (["status", "redis1", ""], []),
        (["-o", ""], ["table", "json", "yaml"]),
        (["-o", "json", "status", "d"], ["db1"]),
        (["status", "-o", "y"], ["yaml"]),
        (["protect", "redis1", "--peer", ""], ["beta", "gamma"]),
        (["protect", "--peer", "beta", "red"], ["redis1", "redis2"]),
        (["failover", "redis1", "--fenced-h"], ["--fenced-host"]),
        (["failover", "redis1", "--fenced-host", "g"], ["gamma"]),
        (["fence-check", "b"], ["beta"]),
        (["stream", ""], ["verify", "inspect", "diff", "convert", "cut", "send"]),
        (["stream", "inspect", "--ep"], ["--epochs"]),
        (["stream", "send", "--to", "be"], ["beta"]),
        (["stream", "verify", "re"], ["remusctl"]),
        (["switchover", "redis1", "--dry"], ["--dry-run"]),
        (["pause", "redis1", "--for", ""], []),
        (["nonsense", ""], []),
    ],
    ids=" ".join,
)
def test_what_is_offered(tmp_path: Path, words: list[str], expected: list[str]) -> None:
    assert offered(tmp_path, *words) == expected
