"""Cache folders, module order, console files, settings."""

import json
import subprocess
from pathlib import Path

import pytest
from lab import console
from lab.cli import main
from lab.errors import LabError
from lab.initramfs import load_order, pack
from lab.progress import Progress
from lab.spec import Paths, Settings, load_settings, save_settings
from lab.ssh import render_config
from lab.store import build_once

QUIET = Progress(quiet=True)


def test_cache_folder_is_complete_or_absent(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "thing"

    def fail(new: Path) -> None:
        (new / "half").touch()
        raise LabError("no")

    with pytest.raises(LabError):
        build_once(folder, fail, QUIET)
    assert not folder.exists()
    left = folder.with_name(".thing.new")
    assert not left.exists()
    left.mkdir()
    (left / "rest").touch()
    assert build_once(folder, lambda new: (new / "whole").touch(), QUIET)
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert not build_once(folder, fail, QUIET)


def test_modules_come_after_what_they_need() -> None:
    depends = {"k/a-b.ko.xz": ["k/c.ko", "k/d.ko"], "k/c.ko": ["k/d.ko"], "k/d.ko": []}
    assert load_order(["c", "a_b", "built-in"], depends, {"built_in"}) == ["k/d.ko", "k/c.ko", "k/a-b.ko.xz"]
    with pytest.raises(LabError, match="missing"):
        load_order(["missing"], depends, set())


def test_an_initramfs_is_unpacked_by_its_kernel_and_not_by_libxc(tmp_path: Path) -> None:
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "root" / "etc" / "one").write_text("it")
    pack(tmp_path / "root", tmp_path / "initrd.img")
    packed = (tmp_path / "initrd.img").read_bytes()
    assert not packed.startswith(b"\x1f\x8b"), "gzip"
    unpacked = subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout
    listed = subprocess.run(["cpio", "--quiet", "-t"], input=unpacked, capture_output=True, check=True).stdout.split()
    assert listed == [b"etc", b"etc/one"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["initrd.img", "root"]


def test_console_tail_and_fatal_line(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    assert console.fatal_line(path) is None
    path.write_bytes(b"one\r\n\x1b[0mtwo\r\n(XEN) Panic on CPU 0:\r\nlast\r\n")
    assert console.tail(path, 2) == "(XEN) Panic on CPU 0:\nlast"
    assert console.fatal_line(path) == "(XEN) Panic on CPU 0:"
    with path.open("ab") as file:
        file.write(b"\x1b[0;1;39mWelcome to \x1b[0mDebian\r\n")
    assert console.fatal_line(path) is None, "it has booted again since"
    console.rotate(path)
    console.rotate(path)
    assert [p.name for p in tmp_path.iterdir()] == ["console.log.1"]


def test_settings_are_kept_and_may_not_be_contradicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = Paths(tmp_path, tmp_path / "cache")
    assert load_settings(paths) is None
    save_settings(paths, Settings(debian=12, namespace="remus-lab-unit"))
    assert load_settings(paths) == Settings(debian=12, namespace="remus-lab-unit")
    assert main(["--state", str(tmp_path), "up", "--debian", "13"]) == 1
    assert "take it down first" in capsys.readouterr().err


def test_status_of_no_lab(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_settings(Paths(tmp_path, tmp_path), Settings(namespace="remus-lab-unit"))
    assert main(["--state", str(tmp_path), "status"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["network"] is False
    assert {name: host["running"] for name, host in status["hosts"].items()} == {"alpha": False, "beta": False}
    assert (status["witness"]["name"], status["witness"]["running"]) == ("gamma", False)
    assert main(["--state", str(tmp_path), "fence-status", "alpha"]) == 0
    assert capsys.readouterr().out == "off\n"


def test_a_machine_needs_a_lab_around_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_settings(Paths(tmp_path, tmp_path), Settings(namespace="remus-lab-unit"))
    assert main(["--state", str(tmp_path), "start", "gamma"]) == 1
    assert "bring it up first" in capsys.readouterr().err
    for verb in ("kill", "freeze", "thaw"):
        assert main(["--state", str(tmp_path), verb, "gamma"]) == 0
        assert json.loads(capsys.readouterr().out) == {"changed": False}


def test_ssh_config_names_every_machine(tmp_path: Path) -> None:
    text = render_config(Paths(tmp_path, tmp_path), Settings(ssh_base_port=3000))
    assert "Host alpha\n  HostName 127.0.0.1\n  Port 3000\n" in text
    assert "Host beta\n  HostName 127.0.0.1\n  Port 3001\n" in text
    assert "Host gamma\n  HostName 127.0.0.1\n  Port 3002\n" in text
