"""playbooks/support_bundle.yml: an archive of every host that has one to give, and a word about each that has not."""

from __future__ import annotations

import os
import re
import sys
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.modules.conftest import ROOT
from tests.roles.local_play import run_playbook

pytestmark = [pytest.mark.playbooks, pytest.mark.timeout(900)]

REAL = f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m remus_agent.remusctl "$@"\n'
FULL = "#!/bin/sh\necho 'remusctl: cannot write: No space left on device' >&2\nexit 13\n"


def host(folder: Path, name: str, remusctl: str | None) -> dict[str, Any]:
    """One that is this machine, with a remusctl of its own or without one."""
    prefix = folder / name
    if remusctl is not None:
        program = prefix / "current" / "bin" / "remusctl"
        program.parent.mkdir(parents=True)
        program.write_text(remusctl)
        program.chmod(0o755)
    return {"remus_agent_prefix": str(prefix), "remus_agent_run_dir": str(prefix), "remus_agent_state_dir": str(prefix)}


DOWN = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


def collect(folder: Path, hosts: dict[str, Any], *options: str, fails: bool = False) -> str:
    """Run it; what it printed, on one line. The folder is named as people do, from where they are."""
    target = ("-e", f"remus_support_dir={os.path.relpath(folder / 'support', ROOT)}")
    code, text = run_playbook(
        folder, {"children": {"remus_hosts": {"hosts": hosts}}}, "support_bundle", *target, *options
    )
    assert (code != 0) is fails, text
    return " ".join(text.split())


def left_on_hosts() -> list[Path]:
    return list(Path("/var/tmp").glob("remus-support-*"))  # noqa: S108  where the playbook has it put together


def test_a_dead_host_keeps_nobody_elses_from_being_collected(tmp_path: Path) -> None:
    hosts = {
        "alpha": host(tmp_path, "alpha", REAL),
        "beta": host(tmp_path, "beta", REAL),
        "gone": host(tmp_path, "gone", REAL) | DOWN,
        "full": host(tmp_path, "full", FULL),
        "bare": host(tmp_path, "bare", None),
    }
    text = collect(tmp_path, hosts)
    support = tmp_path / "support"
    assert sorted(path.name for path in support.iterdir()) == ["alpha.tar.xz", "beta.tar.xz"]
    assert support.stat().st_mode & 0o777 == 0o700
    for path in support.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        with tarfile.open(path) as archive:
            assert any(name.endswith("/manifest.json") for name in archive.getnames())
    assert "gone: it does not answer" in text
    assert "full: remusctl: cannot write: No space left on device" in text
    assert re.search(r"bare: .*No such file", text)
    assert left_on_hosts() == []


@pytest.fixture
def left() -> Iterator[tuple[Path, Path]]:
    """Archives of a run that was killed two hours ago, and of one that has put its own together just now."""
    dead, lives = (Path(f"/var/tmp/remus-support-{name}-{uuid.uuid4().hex}.tar.xz") for name in ("dead", "lives"))  # noqa: S108
    dead.touch()
    os.utime(dead, (time.time() - 7200,) * 2)
    lives.touch()
    yield dead, lives
    dead.unlink(missing_ok=True)
    lives.unlink(missing_ok=True)


def test_what_a_run_that_was_killed_has_left_goes_with_the_next(tmp_path: Path, left: tuple[Path, Path]) -> None:
    dead, lives = left
    collect(tmp_path, {"alpha": host(tmp_path, "alpha", REAL)})
    assert [path.name for path in (tmp_path / "support").iterdir()] == ["alpha.tar.xz"]
    assert left_on_hosts() == [lives]
    assert not dead.exists()


def test_only_the_folder_that_it_makes_is_for_its_owner_alone(tmp_path: Path) -> None:
    """results/ is everybody's as usual, made by whichever playbook comes first; and a folder that is there may be /tmp."""
    hosts = {"alpha": host(tmp_path, "alpha", REAL)}
    inventory = {"children": {"remus_hosts": {"hosts": hosts}}}
    results = tmp_path / "new" / "results"
    code, text = run_playbook(tmp_path, inventory, "support_bundle", variables={"remus_results_dir": str(results)})
    assert code == 0, text
    (support,) = results.iterdir()
    assert [path.stat().st_mode & 0o777 for path in (results.parent, results, support)] == [0o755, 0o755, 0o700]
    there = tmp_path / "there"
    there.mkdir()
    there.chmod(0o777)
    # A relative path begins where the operator stands, which is the project's folder here.
    relative = os.path.relpath(there, ROOT)
    code, text = run_playbook(tmp_path, inventory, "support_bundle", "-e", f"remus_support_dir={relative}")
    assert code == 0, text
    assert there.stat().st_mode & 0o777 == 0o777
    (archive,) = there.iterdir()
    assert (archive.name, archive.stat().st_mode & 0o777) == ("alpha.tar.xz", 0o600)
    assert str(archive) in text


def test_a_limit_is_refused_in_our_words(tmp_path: Path) -> None:
    """It leaves out localhost, which makes the folder; remus_target does not."""
    hosts = {"alpha": host(tmp_path, "alpha", REAL), "beta": host(tmp_path, "beta", REAL)}
    text = collect(tmp_path, hosts, "--limit", "alpha", fails=True)
    assert "localhost does not take part (--limit alpha), so nothing was collected" in text
    assert "-e remus_target=HOST" in text
    assert not (tmp_path / "support").exists()
    assert left_on_hosts() == []
    collect(tmp_path, hosts, "-e", "remus_target=alpha")
    assert [path.name for path in (tmp_path / "support").iterdir()] == ["alpha.tar.xz"]
    text = collect(tmp_path, hosts, "-e", "remus_target=alhpa", fails=True)
    assert "Nothing was collected: no host of the inventory is meant by alhpa." in text


def test_check_mode_collects_nothing(tmp_path: Path) -> None:
    text = collect(tmp_path, {"alpha": host(tmp_path, "alpha", REAL), "gone": DOWN}, "--check")
    assert not (tmp_path / "support").exists()
    assert "alpha: nothing is collected in check mode" in text
    assert "gone: it does not answer" in text


def test_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    text = collect(tmp_path, {"gone": DOWN, "bare": host(tmp_path, "bare", None)}, fails=True)
    why = text[text.index("Nothing was collected: ") :]
    assert re.search(
        r"bare: \S+/remusctl: No such file or directory, no agent is installed there; gone: it does not answer\. ", why
    )
