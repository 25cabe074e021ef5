from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from remus_agent.adapters.journal import directory
from remus_agent.adapters.journal.guests import GuestFiles
from remus_agent.adapters.journal.pauses import PauseFiles
from remus_agent.errors import JournalError
from remus_agent.store_ports import PauseNote

NOTE = PauseNote("web1", "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001", "beta", 40, 1 << 20, until=1234.5, reason="new switch")


@pytest.fixture
def boot_id(tmp_path: Path) -> Path:
    path = tmp_path / "boot_id"
    path.write_text("first\n")
    return path


async def test_notes_outlive_the_agent_and_are_over_when_the_host_was_started_anew(
    tmp_path: Path, boot_id: Path
) -> None:
    files = PauseFiles(tmp_path / "paused", boot_id)
    assert await files.load_all() == ([], [])
    await files.save(NOTE)
    assert await PauseFiles(tmp_path / "paused", boot_id).load_all() == ([NOTE], [])
    another = tmp_path / "another"
    await asyncio.to_thread(another.write_text, "second\n")
    (found,), damaged = await PauseFiles(tmp_path / "paused", another).load_all()
    assert (found.until, found.reason, damaged) == (0.0, "new switch", [])
    assert await files.remove("web1")
    assert not await files.remove("web1")


@pytest.mark.parametrize("text", ["", "{}", '{"boot":"first","note":{"name":"web1"}}', "\xff"])
async def test_a_damaged_note_hides_no_other(tmp_path: Path, boot_id: Path, text: str) -> None:
    files = PauseFiles(tmp_path / "paused", boot_id)
    await files.save(NOTE)
    (tmp_path / "paused" / "db1.json").write_bytes(text.encode("latin-1"))
    (tmp_path / "paused" / "web2.json").write_bytes((tmp_path / "paused" / "web1.json").read_bytes())
    notes, damaged = await files.load_all()
    assert notes == [NOTE]
    assert [error.domain for error in damaged] == ["db1", "web2"]
    assert "it is the note of 'web1'" in str(damaged[1])


async def test_names_that_are_no_file_names_are_refused(tmp_path: Path, boot_id: Path) -> None:
    with pytest.raises(JournalError):
        await PauseFiles(tmp_path, boot_id).remove("../x")


async def test_a_disk_that_takes_nothing(tmp_path: Path, boot_id: Path) -> None:
    (tmp_path / "paused").write_text("in the way")
    with pytest.raises(JournalError, match="cannot save") as caught:
        await PauseFiles(tmp_path / "paused", boot_id).save(NOTE)
    assert caught.value.left == "nothing was changed"


def test_whether_a_directory_takes_anything(tmp_path: Path) -> None:
    directory.check_writable(tmp_path / "journal")
    assert list((tmp_path / "journal").iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JournalError, match="cannot write"):
        directory.check_writable(tmp_path / "file")


@pytest.mark.parametrize("kind", [PauseFiles, GuestFiles])
async def test_a_directory_that_cannot_be_listed_is_an_error_and_not_an_empty_one(
    tmp_path: Path, kind: type[PauseFiles] | type[GuestFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    for call in ("listdir", "scandir"):
        monkeypatch.setattr(os, call, fails)
    with pytest.raises(JournalError, match=r"cannot read .*: Input/output error") as caught:
        await kind(tmp_path).load_all()
    assert "the device under" in str(caught.value.hint)


async def test_a_file_in_the_directorys_place_is_no_empty_directory(tmp_path: Path, boot_id: Path) -> None:
    (tmp_path / "paused").write_text("in the way")
    with pytest.raises(JournalError, match="cannot read"):
        await PauseFiles(tmp_path / "paused", boot_id).load_all()
