"""`remusctl stream`: results and exit codes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from stream_runs import CHECKPOINTED, DAMAGED, EPOCHS, PLAIN, facts, names, run
from streams import builder, meaning
from streams.builder import Epoch
from xxhash import xxh3_128_hexdigest

from remus_agent.cli import files
from remus_agent.cli import main as cli


def test_verify_says_what_a_stream_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "saved"
    path.write_bytes(PLAIN)
    assert run("verify", path, "-o", "json") == 0
    assert facts(capsys) == {
        "verdict": "good",
        "guest": "redis1",
        "type": "PVH",
        "xen": "4.17",
        "libxl_version": 2,
        "libxc_version": 3,
        "epochs": 1,
        "checkpoints": 0,
        "records": 10,
        "pages": 2,
        "bytes": len(PLAIN),
        "xxh3_128": xxh3_128_hexdigest(PLAIN),
    }
    assert run("verify", path) == 0
    assert "guest:      redis1 (PVH)\nwritten by: Xen 4.17, libxc version 3\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stream", "code", "verdict", "error"),
    [
        (CHECKPOINTED, 15, "cut-between", "truncated between epochs"),
        (CHECKPOINTED[:-1], 14, "cut-inside", "truncated in a record header: 1 of its 8 bytes are missing"),
        (CHECKPOINTED[:-8], 14, "cut-inside", "truncated inside an epoch"),
        (PLAIN[:200], 14, "cut-inside", "truncated in"),
        (b"", 14, None, "truncated in the xl header: 48 of its 48 bytes are missing"),
        (b"\x89PNG" + bytes(100), 6, None, "this is not a domain saved by xl"),
        (DAMAGED, 6, "damaged", "wrong order: libxc's END "),
        (PLAIN + b"x", 6, "damaged", "bytes after the end of the stream"),
        (builder.checkpointed([Epoch(emulator=b"x")]), 6, "damaged", "expected a record of a PVH guest"),
    ],
)
def test_verify_tells_streams_apart(
    saved: Path, capsys: pytest.CaptureFixture[str], stream: bytes, code: int, verdict: str | None, error: str
) -> None:
    saved.write_bytes(stream)
    assert run("verify", saved, "-o", "json") == code
    out, err = capsys.readouterr()
    assert (json.loads(out)["verdict"] if out else None) == verdict
    found = json.loads(err)["error"]
    assert error in found["message"]
    assert found["operation"] == f"read {saved}"


def test_errors_name_the_place(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved.write_bytes(DAMAGED)
    assert run("verify", saved) == 6
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"remusctl: read {saved}, epoch 4: wrong order: libxc's END ")
    assert first.endswith(f"(libxc record 24, END from byte {len(CHECKPOINTED)}, at byte {len(CHECKPOINTED)})")
    assert last == "  next: what is complete, epochs 1 to 3, can be used: remusctl stream convert --epoch"
    assert run("verify", saved, "-o", "json") == 6
    found = json.loads(capsys.readouterr().err)["error"]
    place = {"layer": "libxc", "record": "END", "ordinal": 24, "start": len(CHECKPOINTED), "offset": len(CHECKPOINTED)}
    assert place.items() <= found.items()


def test_inspect_counts(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", saved, "-o", "json") == 15
    found = facts(capsys)
    assert (found["zero_pages"], found["pages"], found["epochs"]) == (1, 4, 3)
    assert found["pages_by_type"] == {"NOTAB": 4, "XALLOC": 1}
    assert run("inspect", saved) == 15
    out = capsys.readouterr().out
    assert "zero pages:     1 (25%)" in out
    assert "libxc  PAGE_DATA         4        " in out


def test_inspect_lists_records_and_epochs(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("inspect", saved, "--records")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["RECORD", "OFFSET", "LAYER", "TYPE", "LENGTH", "EPOCH", "PAGES"]
    assert lines[9].split() == ["5", "259", "libxc", "PAGE_DATA", "8216", "1", "2", "of", "2"]
    run("inspect", saved, "--epochs", "-o", "json")
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one.get("pages") for one in found] == [2, 1, 1, None]
    assert found[-1]["summary"]["epochs"] == 3
    run("inspect", saved, "--epochs")
    assert capsys.readouterr().out.splitlines()[0].split()[:2] == ["EPOCH", "OFFSET"]
    assert run("inspect", saved, "--epochs", "--records") == 2


def test_a_list_in_yaml_is_one_document(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("inspect", saved, "--epochs", "-o", "json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    run("inspect", saved, "--epochs", "-o", "yaml")
    assert yaml.safe_load(capsys.readouterr().out) == lines
    run("verify", saved, "-o", "yaml")
    assert yaml.safe_load(capsys.readouterr().out)["verdict"] == "cut-between"


@pytest.mark.parametrize("epoch", [1, 2, 3, None])
def test_convert(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], epoch: int | None) -> None:
    target = tmp_path / "plain"
    chosen = () if epoch is None else ("--epoch", str(epoch))
    assert run("convert", saved, target, *chosen) == 0
    assert meaning.of_plain(target.read_bytes()) == meaning.of_epochs(EPOCHS[:epoch])
    assert stat.S_IMODE(target.stat().st_mode) == 0o600, "it holds a guest's memory"
    assert f"epoch:   {epoch or 3}" in capsys.readouterr().out
    assert run("verify", target) == 0
    assert run("diff", saved, target, *(() if epoch is None else ("--epoch-a", str(epoch)))) == 0
    assert names(tmp_path) == ["plain", "redis1.saved"]


def test_convert_leaves_out_an_epoch_that_is_not_complete(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved.write_bytes(CHECKPOINTED[:-30])
    assert run("convert", saved, tmp_path / "plain", "-o", "json") == 0
    found = facts(capsys)
    assert found["epoch"] == 2
    assert found["left_out"] == len(EPOCHS[2].raw) - 30
    plain = (tmp_path / "plain").read_bytes()
    assert meaning.of_plain(plain) == meaning.of_epochs(EPOCHS[:2])
    assert found["bytes"] == len(plain)


@pytest.mark.parametrize("held", [1, 1 << 20])
def test_convert_to_a_pipe_gives_the_same(
    saved: Path,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    held: int,
) -> None:
    monkeypatch.setattr(files, "_HELD_IN_MEMORY", held)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    saved.write_bytes(CHECKPOINTED[:-30])
    assert run("convert", saved, tmp_path / "plain") == 0
    capfdbinary.readouterr()
    assert run("convert", saved, "-") == 0
    out, err = capfdbinary.readouterr()
    assert out == (tmp_path / "plain").read_bytes()
    assert b"of an epoch that is not complete" in err


def test_cut(saved: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run("cut", saved, tmp_path / "cut", "--epoch", "2") == 0
    assert (tmp_path / "cut").read_bytes() == EPOCHS[1].raw
    capfdbinary.readouterr()
    assert run("cut", saved, "-", "--epoch", "3") == 0
    assert capfdbinary.readouterr() == (EPOCHS[2].raw, b"")


@pytest.mark.parametrize(
    ("stream", "arguments", "code"),
    [
        (CHECKPOINTED, ("--epoch", "4"), 3),
        (CHECKPOINTED[:-10], ("--epoch", "4"), 3),
        (CHECKPOINTED[:-10], ("--epoch", "3"), 14),
        (CHECKPOINTED[:300], ("--epoch", "1"), 14),
        (DAMAGED, ("--epoch", "4"), 6),
        (b"garbage" * 100, ("--epoch", "1"), 6),
        (b"", ("--epoch", "1"), 14),
    ],
)
@pytest.mark.parametrize("tool", ["convert", "cut"])
def test_nothing_is_written_from_a_stream_that_does_not_hold_the_epoch(
    saved: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    tool: str,
    stream: bytes,
    arguments: tuple[str, ...],
    code: int,
) -> None:
    saved.write_bytes(stream)
    target = tmp_path / "plain"
    target.write_text("the one before")
    assert run(tool, saved, target, *arguments) == code
    assert target.read_text() == "the one before"
    assert names(tmp_path) == ["plain", "redis1.saved"]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("remusctl: read ")


def test_a_damaged_stream_is_not_converted_and_says_which_epochs_are_whole(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved.write_bytes(DAMAGED)
    assert run("convert", saved, tmp_path / "plain") == 6
    assert "next: what is complete, epochs 1 to 3, can be used" in capsys.readouterr().err
    assert not (tmp_path / "plain").exists()
    assert run("convert", saved, tmp_path / "plain", "--epoch", "3") == 0


def test_diff(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("diff", saved, saved, "-o", "json") == 0
    assert facts(capsys)["same"] is True
    assert run("diff", saved, saved, "--epoch-a", "1", "-o", "json") == 16
    found = facts(capsys)
    assert found["memory"]["differ"] == [[1, 2]]
    assert found["memory"]["differ_pages"] == 2
    assert found["memory"]["only_b"] == [[7, 7]]
    assert [one["name"] for one in found["changes"]] == ["nsec"]
    assert run("diff", saved, saved, "--epoch-b", "2") == 16
    out = capsys.readouterr().out
    assert "  1 only in a, in 1 ranges of pfns:\n    0x7\n" in out
    assert "hvm      CPU 0 rip  0x1000  0x2000" in out
    assert run("diff", saved, saved, "--epoch-b", "9") == 3
    other = tmp_path / "other"
    other.write_bytes(DAMAGED)
    assert run("diff", saved, other) == 6
    assert f"read {other}, epoch 4" in capsys.readouterr().err
    assert run("diff", "-", "-") == 2


def test_names_that_are_no_text_are_shown_and_stay_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = os.fsdecode(bytes(tmp_path) + b"/\xff")
    config = {"c_info": {"type": "pvh", "name": "a\ud800b\x1b[2J"}}
    Path(path).write_bytes(builder.plain(EPOCHS[:1], builder.preamble(config)))
    assert run("verify", path, "-o", "json") == 0
    assert facts(capsys)["guest"] == config["c_info"]["name"]
    assert run("diff", path, path, "-o", "json") == 0
    assert os.fsencode(facts(capsys)["a"]["file"]) == os.fsencode(path)
    assert run("verify", path) == 0
    assert "a?b?[2J (PVH)" in capsys.readouterr().out
    assert run("diff", path, path) == 0
    assert "/?, epoch 1" in capsys.readouterr().out


def test_other_commands_do_not_wait_for_numpy() -> None:
    code = "import remus_agent.cli.main, sys; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_many_ranges_are_not_all_shown(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    other.write_bytes(builder.checkpointed([*EPOCHS, Epoch(dict.fromkeys(range(10, 100, 2), 1))]))
    assert run("diff", saved, other) == 16
    out = capsys.readouterr().out
    assert "45 only in b, in 45 ranges of pfns:" in out
    assert "and 25 more (all of them: -o json)" in out
    assert "tsc      nsec  9  5" in out


@pytest.mark.parametrize(
    "arguments",
    [["stream"], ["stream", "verify"], ["stream", "cut", "a", "b"], ["stream", "convert", "a", "b", "--epoch", "0"]],
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: remusctl stream" in capsys.readouterr().err


def test_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["stream", "--help"], ["stream", "verify", "--help"]):
        with pytest.raises(SystemExit):
            cli.main(arguments)
        assert "15 the stream ends between epochs" in " ".join(capsys.readouterr().out.split())
