from __future__ import annotations

import asyncio
import errno
import os
import stat
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from remus_agent.adapters.journal.guests import GuestFiles
from remus_agent.errors import JournalError
from remus_agent.store_ports import GuestRecord


def guest(name: str = "redis1", generation: int = 1) -> GuestRecord:
    return GuestRecord(
        name=name,
        uuid="7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001",
        role="primary",
        peer="beta",
        generation=generation,
        committed=True,
        interval_ms=0,
        output_limit_bytes=1 << 26,
    )


def test_saved_loaded_removed(tmp_path: Path) -> None:
    async def run() -> None:
        files = GuestFiles(tmp_path / "guests")
        assert await files.load("redis1") is None
        assert (await files.load_all()).records == ()
        await files.save(guest())
        await files.save(guest("web"))
        await files.save(guest(generation=2))
        assert await files.load("redis1") == guest(generation=2)
        assert (await files.load_all()).records == (guest(generation=2), guest("web"))
        assert stat.S_IMODE((tmp_path / "guests" / "redis1.json").stat().st_mode) == 0o600
        assert await files.remove("redis1")
        assert not await files.remove("redis1")
        assert (await files.load_all()).records == (guest("web"),)
        assert [path.name for path in (tmp_path / "guests").iterdir()] == ["web.json"]

    asyncio.run(run())


def test_a_record_of_an_earlier_release_is_loaded(tmp_path: Path) -> None:
    """It has none of the fields that came later."""
    later = {"override", "handed", "starting", "until", "members"}
    plain = {key: value for key, value in msgspec.to_builtins(guest()).items() if key not in later}
    (tmp_path / "redis1.json").write_bytes(msgspec.json.encode(plain))
    assert asyncio.run(GuestFiles(tmp_path).load("redis1")) == guest()


def test_a_release_from_before_reads_what_has_nothing_to_say_to_it(tmp_path: Path) -> None:
    """Each field that came later would be unknown to it, and an unknown field is damage."""
    asyncio.run(GuestFiles(tmp_path).save(guest()))
    first = {"name", "uuid", "role", "peer", "generation", "committed", "interval_ms", "output_limit_bytes"}
    assert msgspec.json.decode((tmp_path / "redis1.json").read_bytes()).keys() == first


def test_a_field_of_a_newer_release_is_named_and_what_to_do(tmp_path: Path) -> None:
    plain = msgspec.to_builtins(guest()) | {"master": True}
    (tmp_path / "redis1.json").write_bytes(msgspec.json.encode(plain))
    with pytest.raises(JournalError, match="unknown fields master") as caught:
        asyncio.run(GuestFiles(tmp_path).load("redis1"))
    assert "the newer release" in (caught.value.hint or "")


def test_what_is_to_be_said_is_saved(tmp_path: Path) -> None:
    said = replace(
        guest(), override="alpha is off", handed="s", starting="redis1--incoming-0", until=7.5, members=("a", "b")
    )
    asyncio.run(GuestFiles(tmp_path).save(said))
    assert asyncio.run(GuestFiles(tmp_path).load("redis1")) == said


def test_a_failed_save_leaves_the_record_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        files = GuestFiles(tmp_path)
        await files.save(guest())

        def full(fd: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(JournalError, match="No space left") as caught:
                await files.save(guest(generation=2))
        assert caught.value.hint is not None
        assert await files.load("redis1") == guest()

    asyncio.run(run())
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_crash_left_in_the_middle_of_saving_is_ignored(tmp_path: Path) -> None:
    async def run() -> None:
        files = GuestFiles(tmp_path)
        (tmp_path / ".redis1.json.new").write_text("{")
        assert (await files.load_all()).records == ()
        await files.save(guest())
        assert (await files.load_all()).records == (guest(),)

    asyncio.run(run())


def test_data_then_name_then_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_sync(fd: int) -> None:
        calls.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "data")
        fsync(fd)

    def note_rename(path: Path, target: Path) -> Path:
        calls.append("name")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    files = GuestFiles(tmp_path)
    asyncio.run(files.save(guest()))
    assert calls == ["data", "name", "directory"]
    calls.clear()
    asyncio.run(files.remove("redis1"))
    assert calls == ["directory"]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"name":"bad"}', b"\xff"])
def test_a_damaged_file_is_reported_and_hides_no_other(tmp_path: Path, text: bytes) -> None:
    async def run() -> None:
        files = GuestFiles(tmp_path)
        await files.save(guest())
        (tmp_path / "bad.json").write_bytes(text)
        with pytest.raises(JournalError, match="damaged"):
            await files.load("bad")
        found = await files.load_all()
        assert found.records == (guest(),)
        assert [error.domain for error in found.damaged] == ["bad"]
        assert (tmp_path / "bad.json").read_bytes() == text

    asyncio.run(run())


def test_a_record_under_another_name_or_with_other_fields_is_damaged(tmp_path: Path) -> None:
    async def run() -> None:
        files = GuestFiles(tmp_path)
        (tmp_path / "web.json").write_bytes(msgspec.json.encode(guest()))
        plain = msgspec.to_builtins(guest("db")) | {"master": True}
        (tmp_path / "db.json").write_bytes(msgspec.json.encode(plain))
        assert [error.domain for error in (await files.load_all()).damaged] == ["db", "web"]

    asyncio.run(run())


def test_names_are_checked(tmp_path: Path) -> None:
    with pytest.raises(JournalError):
        asyncio.run(GuestFiles(tmp_path).save(guest("../../etc/cron.d/x")))
