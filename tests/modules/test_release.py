"""remus_release: complete or not there, switched in one step, old ones gone."""

from __future__ import annotations

import fcntl
import io
import mmap
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.modules.conftest import RunModule

POINTS = "[console_scripts]\nsay = sample.__main__:main\n"


def archive(path: Path, word: str, **extra: str) -> Path:
    """A release's tar with one wheel whose command prints a word."""
    files = {
        "sample/__init__.py": "",
        "sample/__main__.py": f"def main():\n    print('{word}')\n",
        "sample/units/say.service": f"# {word}\n[Install]\nWantedBy=multi-user.target\n",
        "sample-1.dist-info/entry_points.txt": POINTS,
        **extra,
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("sample-1-py3-none-any.whl")
        member.size = len(content.getvalue())
        tar.addfile(member, io.BytesIO(content.getvalue()))
    return path


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that makes the links of `enable` and writes down how it was called. It has read what `read` is a copy of, and
    does not read while `busy` is there."""
    log, unit, read = tmp_path / "systemctl.log", tmp_path / "units/say.service", tmp_path / "read"
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ "$1" != show ] || {{ cmp -s {unit} {read} && echo no || echo yes; exit; }}\n'
        f'echo "$*" >>{log}\n[ "$1" != daemon-reload ] || {{ [ ! -e {tmp_path}/busy ] && cp {unit} {read}; exit; }}\n'
        f"mkdir -p {tmp_path}/units/multi-user.target.wants\n"
        f"ln -s ../say.service {tmp_path}/units/multi-user.target.wants/say.service\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return log


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "units").mkdir()
    return {
        "prefix": str(tmp_path / "opt"), "project": "sample", "unit_folder": str(tmp_path / "units"),
    }  # fmt: skip


def install(
    run_module: RunModule, options: dict[str, Any], tmp_path: Path, release: str, **more: Any
) -> dict[str, Any]:
    """Unpack and switch."""
    tar = archive(tmp_path / "a.tar", release)
    first = run_module("remus_release", release=release, archive=str(tar), **options)
    assert first["changed"], first
    return run_module("remus_release", release=release, state="current", units=["say.service"], **options, **more)


def test_install_switch_and_run(run_module: RunModule, options: dict[str, Any], tmp_path: Path) -> None:
    link = tmp_path / "say"
    result = install(run_module, options, tmp_path, "1-a", links={str(link): "say"})
    assert result["changed"]
    assert subprocess.run([link], capture_output=True, text=True, check=True).stdout == "1-a\n"
    assert (tmp_path / "units/say.service").read_text().startswith("# 1-a\n")
    assert not (tmp_path / "a.tar").exists()
    again = run_module(
        "remus_release", release="1-a", state="current", units=["say.service"], links={str(link): "say"}, **options
    )
    assert (again["changed"], again["diff"]["after"]) == (False, {})
    assert run_module("remus_release", release="1-a", **options)["changed"] is False


def test_what_a_run_that_was_killed_has_unpacked_is_removed_with_the_next_release(
    run_module: RunModule, options: dict[str, Any], tmp_path: Path
) -> None:
    for release in ("1-a", "1-b"):
        Path(options["prefix"], f".{release}.unpacking/bin").mkdir(parents=True)
    tar = archive(tmp_path / "b.tar", "1-b")
    assert run_module("remus_release", release="1-b", archive=str(tar), **options)["changed"]
    assert list(Path(options["prefix"]).glob(".*")) == []


def test_a_release_is_on_disk_before_it_counts_as_whole(
    run_module: RunModule, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a host that loses power then has a mark, and empty files behind it that every later run takes for whole."""
    log, program = tmp_path / "log", tmp_path / "tools/sync"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$* $(ls -A "$2" | tr "\\n" " ")" >>{log}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    usual = os.fsync

    def fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        with log.open("a") as written:
            written.write(f"{path}: {' '.join(sorted(found.name for found in path.iterdir()))}\n")
        usual(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    tar = archive(tmp_path / "a.tar", "1-a")
    assert run_module("remus_release", release="1-a", archive=str(tar), **options)["changed"]
    tree, names = log.read_text().splitlines()
    assert tree.startswith(f"--file-system {options['prefix']}/.1-a.unpacking ")
    assert " bin " in tree
    assert ".complete" not in tree
    assert names == f"{options['prefix']}: 1-a"
    assert Path(options["prefix"], "1-a/.complete").exists()


def test_everybody_may_read_a_release_whatever_the_umask_of_root(
    run_module: RunModule, options: dict[str, Any], tmp_path: Path
) -> None:
    tar, before = archive(tmp_path / "a.tar", "1-a"), os.umask(0o077)
    try:
        run_module("remus_release", release="1-a", archive=str(tar), folders=[str(tmp_path / "etc/remus")], **options)
    finally:
        os.umask(before)
    prefix = Path(options["prefix"])
    for path in (tmp_path / "etc/remus", prefix, *prefix.rglob("*")):
        mode = path.lstat().st_mode
        assert mode & 0o044 == 0o044, path
        assert mode & 0o111 in (0, 0o111), path


def test_old_releases_go_and_the_newest_stay(run_module: RunModule, options: dict[str, Any], tmp_path: Path) -> None:
    for number, release in enumerate(["1-a", "1-b", "1-c"]):
        result = install(run_module, options, tmp_path, release)
        os.utime(Path(options["prefix"], release, ".complete"), (number, number))
    assert result["removed"] == ["1-a"]
    assert sorted(path.name for path in Path(options["prefix"]).iterdir()) == ["1-b", "1-c", "current", "previous"]
    assert Path(options["prefix"], "current").readlink() == Path("1-c")


def test_half_of_a_removed_release_does_not_count_as_whole(
    run_module: RunModule, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that removed it was killed: whoever goes to that release later gets a new one."""
    for release in ("1-a", "1-b"):
        install(run_module, options, tmp_path, release)
    killed = "no more than this of it was removed"

    def rmtree(path: Path, ignore_errors: bool = False) -> None:
        if Path(path, "bin").exists():
            Path(path, "bin/say").unlink()
            raise OSError(killed)

    with monkeypatch.context() as interrupted:
        interrupted.setattr("shutil.rmtree", rmtree)
        assert killed in install(run_module, options, tmp_path, "1-c")["msg"]
    prefix = Path(options["prefix"])
    assert not (prefix / "1-a").exists()
    assert install(run_module, options, tmp_path, "1-a")["changed"]
    assert (prefix / "1-a/bin/say").exists()
    assert list(prefix.glob(".*")) == []


def test_a_release_that_still_runs_is_not_removed(
    run_module: RunModule, options: dict[str, Any], tmp_path: Path
) -> None:
    """An upgrade was interrupted between the switch and the restart, and then another release was installed."""
    prefix = Path(options["prefix"])
    for number, release in enumerate(["1-a", "1-b", "1-c"]):
        install(run_module, options, tmp_path, release, keep=9)
        os.utime(prefix / release / ".complete", (number, number))
    switch = {"release": "1-c", "state": "current", **options}
    command = [str(prefix / "1-a/bin/python3"), "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as started:
        for check in (True, False):
            again = run_module("remus_release", check=check, **switch)
            assert (again["changed"], again["removed"]) == (False, []), "started from it"
        started.communicate()
    (tmp_path / "link").symlink_to(prefix)
    switch["prefix"] = str(tmp_path / "link")
    with (prefix / "1-a/.complete").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        assert run_module("remus_release", **switch)["removed"] == [], "a file of it is in its memory"
    assert run_module("remus_release", **switch)["removed"] == ["1-a"]


def test_back_is_to_the_release_that_ran_before(run_module: RunModule, options: dict[str, Any], tmp_path: Path) -> None:
    """Also when it is done twice, and the release that was left does not push it out."""
    prefix = Path(options["prefix"])

    def links() -> list[str]:
        return [str((prefix / name).readlink()) for name in ("current", "previous") if (prefix / name).is_symlink()]

    install(run_module, options, tmp_path, "1-a")
    assert links() == ["1-a"]
    install(run_module, options, tmp_path, "1-b")
    assert links() == ["1-b", "1-a"]
    for _ in range(2):
        run_module("remus_release", release="1-a", state="current", **options)
        assert links() == ["1-a", "1-a"]
    for number, release in enumerate(["1-a", "1-b"]):
        os.utime(prefix / release / ".complete", (number, number))
    assert install(run_module, options, tmp_path, "1-c")["removed"] == ["1-b"]
    assert links() == ["1-c", "1-a"]


def test_back_is_not_to_a_release_that_an_interrupted_run_made_current_and_that_never_ran(
    run_module: RunModule, options: dict[str, Any], tmp_path: Path
) -> None:
    prefix = Path(options["prefix"])
    install(run_module, options, tmp_path, "1-a")
    command = [str(prefix / "1-a/bin/python3"), "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as started:
        install(run_module, options, tmp_path, "1-b")
        install(run_module, options, tmp_path, "1-c")
        assert (prefix / "previous").readlink() == Path("1-a")
        started.communicate()
    install(run_module, options, tmp_path, "1-d")
    assert (prefix / "previous").readlink() == Path("1-c"), "where nothing runs nobody knows better"


def test_one_release_alone_leaves_nothing_to_go_back_to(
    run_module: RunModule, options: dict[str, Any], tmp_path: Path
) -> None:
    install(run_module, options, tmp_path, "1-a")
    install(run_module, options, tmp_path, "1-b")
    result = run_module("remus_release", release="1-b", state="current", keep=1, **options)
    assert result["removed"] == ["1-a"]
    assert result["diff"]["after"][f"{options['prefix']}/previous"] is None
    assert sorted(path.name for path in Path(options["prefix"]).iterdir()) == ["1-b", "current"]


def test_systemd_reads_once_and_only_where_needed(
    run_module: RunModule, options: dict[str, Any], tmp_path: Path, systemctl: Path
) -> None:
    install(run_module, options, tmp_path, "1-a", enable=True)
    assert systemctl.read_text().splitlines() == ["--no-reload enable say.service", "daemon-reload"]
    again = run_module("remus_release", release="1-a", state="current", units=["say.service"], enable=True, **options)
    assert again["changed"] is False
    install(run_module, options, tmp_path, "1-b", enable=True)
    assert systemctl.read_text().splitlines() == ["--no-reload enable say.service", "daemon-reload", "daemon-reload"]


def test_a_unit_that_systemd_has_not_read_is_read_by_the_next_run(
    run_module: RunModule, options: dict[str, Any], tmp_path: Path, systemctl: Path
) -> None:
    """The run before was told that systemd is busy, or was not to start anything."""
    switch = {"state": "current", "units": ["say.service"], **options}
    install(run_module, options, tmp_path, "1-a", enable=True)
    (tmp_path / "busy").touch()
    assert "systemctl daemon-reload failed" in install(run_module, options, tmp_path, "1-b", enable=True)["msg"]
    (tmp_path / "busy").unlink()
    for check in (True, False):
        assert run_module("remus_release", check=check, release="1-b", enable=True, **switch)["changed"]
    assert (tmp_path / "read").read_text().startswith("# 1-b\n")
    assert run_module("remus_release", release="1-b", enable=True, **switch)["changed"] is False
    install(run_module, options, tmp_path, "1-c", enable=False)
    assert (tmp_path / "read").read_text().startswith("# 1-b\n")
    assert run_module("remus_release", release="1-c", enable=True, **switch)["changed"]
    assert (tmp_path / "read").read_text().startswith("# 1-c\n")


def test_check_mode_touches_nothing(run_module: RunModule, options: dict[str, Any], tmp_path: Path) -> None:
    for state in ("installed", "current"):
        result = run_module("remus_release", check=True, release="1-a", state=state, units=["say.service"], **options)
        assert result["changed"], result
    assert not Path(options["prefix"]).exists()
    assert list((tmp_path / "units").iterdir()) == []


def test_what_an_interrupted_run_has_left_at_work_is_not_disturbed(
    run_module: RunModule, options: dict[str, Any], tmp_path: Path
) -> None:
    prefix = Path(options["prefix"])
    install(run_module, options, tmp_path, "1-a")
    left = prefix / ".1-b.unpacking"
    left.mkdir()
    tar = archive(tmp_path / "b.tar", "1-b")
    handle = os.open(prefix, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        result = run_module("remus_release", release="1-b", archive=str(tar), **options)
        assert result["failed"]
        assert "An earlier run still unpacks a release" in result["msg"]
        assert left.exists()
    finally:
        os.close(handle)
    assert run_module("remus_release", release="1-b", archive=str(tar), **options)["changed"]
    assert not left.exists()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"sample/__main__.py": "import no_such_module_here\n"}, "do not import"),
        ({"../outside": "x"}, "outside of itself"),
        ({"sample-1.data/scripts/x": "x"}, "does not support"),
        ({"sample-1.dist-info/entry_points.txt": ""}, "no wheel of sample with commands"),
    ],
)
def test_a_bad_archive_leaves_the_release_in_use(
    run_module: RunModule, options: dict[str, Any], tmp_path: Path, extra: dict[str, str], words: str
) -> None:
    install(run_module, options, tmp_path, "1-a")
    tar = archive(tmp_path / "b.tar", "1-b", **extra)
    result = run_module("remus_release", release="1-b", archive=str(tar), **options)
    assert result["failed"]
    assert words in result["msg"]
    assert sorted(path.name for path in Path(options["prefix"]).iterdir()) == ["1-a", "current"]


def test_switching_to_what_is_not_there(run_module: RunModule, options: dict[str, Any], tmp_path: Path) -> None:
    install(run_module, options, tmp_path, "1-a")
    result = run_module("remus_release", release="1-z", state="current", **options)
    assert "not installed; the release in use stays" in result["msg"]
    assert Path(options["prefix"], "current").readlink() == Path("1-a")


def test_a_release_without_an_archive(run_module: RunModule, options: dict[str, Any]) -> None:
    result = run_module("remus_release", release="1-a", **options)
    assert "is not installed and no archive was named" in result["msg"]


def test_what_is_not_ours_is_left_alone(run_module: RunModule, options: dict[str, Any], tmp_path: Path) -> None:
    """A file where the link to a command belongs, and a unit that the release does not have."""
    install(run_module, options, tmp_path, "1-a")
    taken = tmp_path / "say"
    taken.write_text("somebody's")
    switch = {"release": "1-a", "state": "current", **options}
    for check in (True, False):
        result = run_module("remus_release", check=check, links={str(taken): "say"}, **switch)
        assert f"{taken} is not a symbolic link. Next: move it away" in result["msg"]
    assert taken.read_text() == "somebody's"
    result = run_module("remus_release", units=["other.service"], **switch)
    assert "Release 1-a has no unit other.service; the release in use stays" in result["msg"]


def test_a_systemd_that_refuses_is_told_with_what_is_left(
    run_module: RunModule, options: dict[str, Any], tmp_path: Path, systemctl: Path
) -> None:
    (tmp_path / "bin/systemctl").write_text("#!/bin/sh\necho no bus\nexit 1\n")
    result = install(run_module, options, tmp_path, "1-a", enable=True)
    assert "systemctl --no-reload enable say.service failed: no bus" in result["msg"]
    assert "State left: the new release is current, its units are written" in result["msg"]


def test_a_systemd_that_does_not_say_what_it_has_read_is_told(
    run_module: RunModule, options: dict[str, Any], tmp_path: Path, systemctl: Path
) -> None:
    """Also in check mode, which cannot say whether anything would change; nothing is taken for read meanwhile."""
    switch = {"release": "1-a", "state": "current", "units": ["say.service"], "enable": True, **options}
    install(run_module, options, tmp_path, "1-a", enable=True)
    before = systemctl.read_text()
    program = tmp_path / "bin/systemctl"
    good = program.read_text()
    program.write_text(f'#!/bin/sh\necho "$*" >>{systemctl}\necho no bus >&2\nexit 1\n')
    for check in (True, False):
        result = run_module("remus_release", check=check, **switch)
        assert (
            "systemd does not say whether it has read the units: no bus. State left: nothing was changed"
            in result["msg"]
        )
        assert "Next: repair what it names" in result["msg"]
    asked = "show --property=NeedDaemonReload --value say.service\n"
    assert systemctl.read_text() == before + 2 * asked
    program.write_text(good)
    assert run_module("remus_release", **switch)["changed"] is False


def test_who_starts_no_units_does_not_ask_systemd(
    run_module: RunModule, options: dict[str, Any], tmp_path: Path, systemctl: Path
) -> None:
    """In an image that is built there is none."""
    install(run_module, options, tmp_path, "1-a")
    (tmp_path / "bin/systemctl").write_text("#!/bin/sh\necho no bus\nexit 1\n")
    for more in ({"units": ["say.service"], "enable": False}, {"enable": True}):
        result = run_module("remus_release", release="1-a", state="current", **options, **more)
        assert result.get("changed") is False, result


@pytest.mark.parametrize(("said", "changed"), [("no", False), ("yes", True), ("no\nyes", True), ("", False)])
def test_one_unit_that_systemd_has_not_read_suffices(
    run_module: RunModule, options: dict[str, Any], tmp_path: Path, systemctl: Path, said: str, changed: bool
) -> None:
    switch = {"release": "1-a", "state": "current", "units": ["say.service"], "enable": True, **options}
    install(run_module, options, tmp_path, "1-a", enable=True)
    systemctl.write_text("")
    (tmp_path / "bin/systemctl").write_text(
        f'#!/bin/sh\n[ "$1" != show ] || {{ echo "{said}"; exit; }}\necho "$*" >>{systemctl}\n'
    )
    assert run_module("remus_release", **switch)["changed"] is changed
    assert systemctl.read_text().split() == (["daemon-reload"] if changed else [])


def test_a_folder_that_cannot_be_made(run_module: RunModule, options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tar = archive(tmp_path / "a.tar", "1-a")
    result = run_module("remus_release", release="1-a", archive=str(tar), folders=[str(tmp_path / "file/x")], **options)
    assert result["failed"]
    assert "Not a directory" in result["msg"]
    assert tar.exists()
