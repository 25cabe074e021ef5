"""The marker says whose disk it is, or that it cannot be told."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from remus_agent.adapters.disk import marker
from remus_agent.disk_config import Disk
from remus_agent.errors import DiskError

DISK = Disk("db1", "xvda", Path("/dev/x"), Path("/m"), Path("/j"))
OTHER = Disk("db1", "xvdb", Path("/dev/y"), Path("/n"), Path("/k"))


def test_marked_until_cleared(tmp_path: Path) -> None:
    assert not marker.is_backup(tmp_path, DISK)
    marker.clear(tmp_path, DISK)
    for _ in range(2):
        marker.mark(tmp_path, DISK)
        assert marker.is_backup(tmp_path, DISK)
    assert not marker.is_backup(tmp_path, OTHER)
    path = tmp_path / "disks" / "remus-db1-xvda.role"
    assert path.read_text() == "backup\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    marker.clear(tmp_path, DISK)
    marker.clear(tmp_path, DISK)
    assert not marker.is_backup(tmp_path, DISK)


@pytest.mark.parametrize("content", [b"", b"primary\n", b"\xff\xfe"])
def test_what_is_unclear_is_not_guessed(tmp_path: Path, content: bytes) -> None:
    marker.mark(tmp_path, DISK)
    marker.path_of(tmp_path, DISK).write_bytes(content)
    with pytest.raises(DiskError, match=r"remus-db1-xvda\.role: it says") as caught:
        marker.is_backup(tmp_path, DISK)
    assert "remusctl status db1" in (caught.value.hint or "")
    marker.mark(tmp_path, DISK)
    assert marker.is_backup(tmp_path, DISK)


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "disks").write_text("")
    for function in (marker.mark, marker.is_backup, marker.clear):
        with pytest.raises(DiskError):
            function(tmp_path, DISK)
