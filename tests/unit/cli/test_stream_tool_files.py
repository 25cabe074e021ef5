"""What `remusctl stream` does with files, pipes and terminals, and that nothing is left behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stream_runs import CHECKPOINTED, EPOCHS, names, remusctl, run
from streams import builder, meaning
from streams.builder import Epoch
from terminal import TerminalText

from remus_agent.cli import files


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("verify", "{}"), "cannot read {}: Is a directory"),
        (("verify", "{}/missing"), "cannot read {}/missing: No such file or directory"),
        (("convert", "{}/redis1.saved", "{}"), "cannot write {}: Is a directory"),
        (("convert", "{}/redis1.saved", "{}/no/plain"), "cannot write {}/no/plain: No such file or directory"),
        (("convert", "{}/redis1.saved", "/dev/full"), "cannot write /dev/full: No space left on device"),
        (("cut", "{}/redis1.saved", "/dev/full", "--epoch", "1"), "cannot write /dev/full: No space left on device"),
    ],
)
def test_files_that_cannot_be_used(
    saved: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run(*(argument.format(saved.parent) for argument in arguments)) == 13
    assert capsys.readouterr().err.startswith(f"remusctl: {message.format(saved.parent)}\n")
    assert names(saved.parent) == ["redis1.saved"]


def test_a_disk_that_fills_up_leaves_nothing(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = os.writev
    calls = 0

    def writev(fd: int, buffers: list[memoryview]) -> int:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise OSError(28, "No space left on device")
        return real(fd, [buffers[0][: max(1, len(buffers[0]) // 2)]])

    monkeypatch.setattr(os, "writev", writev)
    assert run("convert", saved, tmp_path / "plain") == 13
    assert names(tmp_path) == ["redis1.saved"]
    assert "state left: nothing was left behind" in capsys.readouterr().err


def test_a_file_without_permission(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.io, "FileIO", refuse)
    assert run("inspect", saved) == 13
    assert "Permission denied" in capsys.readouterr().err


def test_the_file_that_is_read_is_not_written(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "link").symlink_to(saved)
    assert run("convert", saved, tmp_path / "link") == 2
    assert saved.read_bytes() == CHECKPOINTED
    assert "is the file that is being read" in capsys.readouterr().err


def test_a_link_is_followed_and_a_fifo_is_written_to(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "plain")
    assert run("convert", saved, tmp_path / "link") == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "plain").is_file()
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    assert run("convert", saved, tmp_path / "fifo") == 0
    assert os.read(reader, 1 << 20) == (tmp_path / "plain").read_bytes()
    os.close(reader)
    assert (tmp_path / "fifo").is_fifo()


def test_progress_is_shown_on_a_terminal_only(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files, "_PATIENCE", 0.0)
    monkeypatch.setattr(files, "_MIB", 1024)
    terminal = TerminalText()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert run("cut", saved, saved.with_name("cut"), "--epoch", "1") == 0
    assert "cutting 100% (" in terminal.getvalue()
    assert terminal.getvalue().endswith(" MiB)\n")
    plain = io.StringIO()
    monkeypatch.setattr(sys, "stderr", plain)
    assert run("cut", saved, saved.with_name("cut"), "--epoch", "1") == 0
    assert plain.getvalue() == ""


def test_terminals_are_neither_read_nor_written(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    assert run("verify", "-") == 2
    assert run("convert", saved, "-") == 2
    assert capsys.readouterr().err.count("is a terminal") == 2


def test_standard_input_and_output_are_pipes(tmp_path: Path) -> None:
    with remusctl("convert", "-", "-", stdin=subprocess.PIPE) as process:
        out, err = process.communicate(CHECKPOINTED)
    assert (process.returncode, err) == (0, b"")
    assert meaning.of_plain(out) == meaning.of_epochs(EPOCHS)


def test_a_reader_that_goes_away(saved: Path, tmp_path: Path) -> None:
    saved.write_bytes(builder.checkpointed([Epoch(dict.fromkeys(range(300), 1))]))
    with remusctl("convert", saved, "-", "--epoch", "1") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
    assert process.returncode == 13
    assert err.startswith(b"remusctl: cannot write standard output: its reader has closed it\n")


def test_a_result_that_cannot_be_printed(saved: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "remus_agent.cli.main", "stream", "inspect", str(saved)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 13
    assert b"remusctl: cannot write the result: No space left on device\n" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with remusctl("convert", "-", tmp_path / "plain", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(CHECKPOINTED)
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while not any(path.stat().st_size > 8192 for path in tmp_path.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(30) == code
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert names(tmp_path) == []
