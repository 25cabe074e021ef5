"""What is said at the end of a run that failed: the line that a person would look for."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))

import aloud
import run_tests
from aloud import run_aloud
from cause import cause

TASK = """\
TASK [Boot what is off and take the guest back to alpha] ****
[ERROR]: Task failed: Module failed: non-zero return code
Origin: /somewhere/cleanup.yml:22:7

  │ \x1b[31mfatal: [localhost]: FAILED! => \x1b[0m
  │ \x1b[31m    changed: true\x1b[0m
  │ \x1b[31m    cmd:\x1b[0m
  │ \x1b[31m    - tests/pair\x1b[0m
  │     msg: non-zero return code
  │     rc: 1
  │     stderr: |-
  │         status 1: ssh alpha
  │         Job for remus-agent.service canceled.
  │     stderr_lines: <omitted>
  │
  │ PLAY RECAP ****
  │ localhost : ok=3 changed=0 failed=1
ERROR    cleanup: Executed: Failed
""".splitlines()


def test_a_failed_task_is_shown_with_what_it_said_and_nothing_else() -> None:
    assert cause(TASK) == [
        "fatal: [localhost]: FAILED! =>",
        "    msg: non-zero return code",
        "    stderr: |-",
        "        status 1: ssh alpha",
        "        Job for remus-agent.service canceled.",
    ]


def test_the_last_lines_of_what_a_task_said_are_the_ones_that_are_shown() -> None:
    assert cause(TASK, lines=2) == ["fatal: [localhost]: FAILED! =>", "        Job for remus-agent.service canceled."]


def test_tests_that_failed_are_shown_by_name() -> None:
    output = ["..F", "E   assert 1 == 2", "FAILED tests/test_a.py::test_b - assert 1 == 2", "1 failed, 2 passed in 3 s"]
    assert cause(output) == ["FAILED tests/test_a.py::test_b - assert 1 == 2"]


def test_anything_else_is_shown_by_its_end() -> None:
    assert cause(["one", "", "two", "x" * 1000], lines=2) == ["two", "x" * 200]


def test_a_command_is_heard_while_it_runs_and_afterwards() -> None:
    code, said = run_aloud((sys.executable, "-c", "print('heard'); raise SystemExit(3)"), Path("/"), os.environ, 60)
    assert (code, said) == (3, ["heard"])


def test_a_command_without_an_end_is_killed() -> None:
    endless = "import time; print('begun', flush=True); time.sleep(600)"
    assert run_aloud((sys.executable, "-c", endless), Path("/"), os.environ, 3) == (None, ["begun"])


def test_what_a_command_leaves_running_does_not_hold_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aloud, "LINGER", 0.5)
    leaves = "import subprocess; subprocess.Popen(['sleep', '20'])"
    code, _ = run_aloud((sys.executable, "-c", leaves), Path("/"), os.environ, 60)
    assert code == 0


def test_a_stage_that_fails_leaves_its_cause_for_the_end() -> None:
    says = "print('one'); raise SystemExit(3)"
    counts = run_tests.Counts()
    stages = [run_tests.Stage("it breaks", (sys.executable, "-c", says))]
    with contextlib.ExitStack() as left:
        assert run_tests.run_all(stages, 0.0, counts, left) == "it breaks"
    assert counts.causes == ["one"]
