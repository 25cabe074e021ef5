"""A pid file never names a process that the lab did not start."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lab import process
from lab.errors import LabError

MARKER = "remus-lab-unit-test"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", MARKER])
    yield started
    started.kill()
    started.wait()


def test_parse_stat_survives_any_name() -> None:
    fields = ["S", *["0"] * 18, "4711", "0"]
    assert process.parse_stat(f"12 (a) R (b) {' '.join(fields)}") == ("S", 4711)


def test_running_process_matches(child: subprocess.Popen[bytes], tmp_path: Path) -> None:
    record = process.record_of(child.pid, MARKER)
    process.save(tmp_path / "pid", record)
    assert process.load(tmp_path / "pid") == record
    assert process.alive(record)


@pytest.mark.parametrize(
    "wrong", [{"start_ticks": 1}, {"boot_id": "another"}, {"marker": "somebody-else"}, {"pid": os.getpid()}]
)
def test_any_difference_means_not_ours(child: subprocess.Popen[bytes], wrong: dict[str, Any]) -> None:
    record = replace(process.record_of(child.pid, MARKER), **wrong)
    assert not process.alive(record)
    assert not process.send(record, signal.SIGKILL)
    assert child.poll() is None


def test_a_process_that_is_being_loaded_is_ours(child: subprocess.Popen[bytes]) -> None:
    record = process.record_of(child.pid, MARKER)
    stat = Path(f"/proc/{child.pid}/stat").read_text()
    assert process.matches(record, stat, b"", record.boot_id)
    assert not process.matches(replace(record, start_ticks=1), stat, b"", record.boot_id)


def test_killed_process_is_off_even_as_a_zombie(child: subprocess.Popen[bytes]) -> None:
    record = process.record_of(child.pid, MARKER)
    assert process.send(record, signal.SIGKILL)
    assert process.wait_gone(record, 10)
    assert not process.alive(record)  # nobody has waited for it yet


def test_wait_gone_gives_up(child: subprocess.Popen[bytes]) -> None:
    assert not process.wait_gone(process.record_of(child.pid, MARKER), 0.05)


def test_no_file_and_damaged_file(tmp_path: Path) -> None:
    assert process.load(tmp_path / "absent") is None
    (tmp_path / "bad").write_text("{")
    with pytest.raises(LabError, match="damaged"):
        process.load(tmp_path / "bad")
