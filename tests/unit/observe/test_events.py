from __future__ import annotations

import errno
import json
import logging
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from remus_agent.observe.events import ID_STEP, EventLog
from tests.failing_close import close_fails


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "events.jsonl"


@pytest.fixture
def events(path: Path) -> Iterator[EventLog]:
    log = EventLog(path)
    yield log
    log.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def test_an_event_in_memory_and_in_the_file(path: Path) -> None:
    events = EventLog(path, now=lambda: datetime(2025, 1, 2, 3, 4, 5, 678900, tzinfo=UTC))
    events.emit("protected", "redis1", epoch=4, detail={"pages": 5})
    events.emit("agent-started")
    assert events.flush()
    expected = {
        "id": 1,
        "time": "2025-01-02T03:04:05.678Z",
        "domain": "redis1",
        "event": "protected",
        "epoch": 4,
        "detail": {"pages": 5},
    }
    assert lines(path)[0] == expected
    assert events.read()[0].as_dict() == expected
    assert events.read()[1].as_dict() == {
        "id": 2,
        "time": "2025-01-02T03:04:05.678Z",
        "domain": None,
        "event": "agent-started",
        "detail": {},
    }
    events.close()


def test_reading(events: EventLog) -> None:
    for number in range(1, 11):
        events.emit("tick", "even" if number % 2 == 0 else "odd")
    assert [e.id for e in events.read()] == list(range(1, 11))
    assert [e.id for e in events.read(limit=3)] == [8, 9, 10]
    assert [e.id for e in events.read(since=4, limit=3)] == [5, 6, 7]
    assert [e.id for e in events.read(since=4, domain="even")] == [6, 8, 10]
    assert events.read(limit=0) == []
    assert events.read(since=10) == []


def test_the_ring_is_bounded(path: Path) -> None:
    events = EventLog(path, ring=5)
    for _ in range(12):
        events.emit("tick")
    assert [e.id for e in events.read()] == [8, 9, 10, 11, 12]
    events.close()
    again = EventLog(path, ring=5)
    assert [e.id for e in again.read()] == [8, 9, 10, 11, 12]
    again.close()


def test_ids_rise_over_restarts_and_history_is_kept(path: Path) -> None:
    ids: list[int] = []
    for _ in range(3):
        events = EventLog(path)
        ids += [events.emit("started").id, events.emit("stopped").id]
        assert [e.id for e in events.read()] == ids
        events.close()
    assert ids == [1, 2, ID_STEP + 1, ID_STEP + 2, 2 * ID_STEP + 1, 2 * ID_STEP + 2]


def test_ids_of_events_that_a_full_disk_kept_out_are_not_given_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    events = EventLog(path)
    events.emit("good")
    assert events.flush()
    with monkeypatch.context() as patch:

        def full(fd: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr("remus_agent.observe.events.os.write", full)
        lost = [events.emit("lost").id for _ in range(20)]
        assert events.flush()
    assert [e.id for e in events.read()] == [1, *lost]
    events.emit("good-again")
    events.close()
    assert [one["event"] for one in lines(path)] == ["good", "good-again"]
    messages = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(messages) == 2
    assert "No space left on device" in messages[0]
    assert "again" in messages[1]
    after = EventLog(path)
    assert after.emit("restarted").id > max(lost)
    after.close()


def test_a_write_that_ended_half_way_spoils_no_other_event(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = EventLog(path)
    events.emit("good")
    assert events.flush()
    write = os.write
    calls = 0

    def half(fd: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            return write(fd, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("remus_agent.observe.events.os.write", half)
        events.emit("torn")
        assert events.flush()
    events.emit("whole")
    events.close()
    after = EventLog(path)
    assert [e.event for e in after.read()] == ["good", "whole"]
    after.close()


def test_a_line_torn_by_a_crash_is_passed_over(path: Path) -> None:
    events = EventLog(path)
    events.emit("one")
    events.close()
    with path.open("a") as file:
        file.write('{"id":2,"time":"x","ev')
    events = EventLog(path)
    events.emit("two")
    events.close()
    after = EventLog(path)
    assert [e.event for e in after.read()] == ["one", "two"]
    after.close()


def test_the_files_are_bounded(path: Path) -> None:
    events = EventLog(path, max_bytes=2000)
    for _ in range(200):
        events.emit("tick", "redis1")
    events.close()
    assert sorted(p.name for p in path.parent.iterdir()) == ["events.jsonl", "events.jsonl.1"]
    assert all(p.stat().st_size <= 2000 for p in path.parent.iterdir())
    ids = [one["id"] for p in (path.with_name("events.jsonl.1"), path) for one in lines(p)]
    assert ids == list(range(ids[0], 201))
    again = EventLog(path, max_bytes=2000)
    assert again.emit("next").id == ID_STEP + 1
    assert len(again.read()) == len(ids) + 1
    again.close()


@pytest.mark.parametrize(
    "detail", [{"path": Path("/x")}, {"bad": float("nan")}, {"set": {1}}, {1: 2}, {"raw": b"\xff"}, {"big": 2**70}]
)
def test_any_detail_can_be_noted(events: EventLog, detail: dict[str, Any], path: Path) -> None:
    events.emit("odd", detail=detail)
    assert events.flush()
    assert lines(path)[0]["event"] == "odd"


@pytest.mark.parametrize(
    "detail", [{"reason": "vif\udcff"}, {"vif\udcff": 1}, {"some": [{"vif\udcff": ("vif\udcff", {1})}]}]
)
def test_a_name_from_xenstore_that_is_no_text_can_be_noted(
    events: EventLog, detail: dict[str, Any], path: Path
) -> None:
    noted = events.emit("odd", "web\udcff", detail=detail)
    assert events.flush()
    assert lines(path)[0]["domain"] == "web\\udcff"
    assert "vif\\udcff" in str(lines(path)[0]["detail"]).replace("\\\\", "\\")
    assert events.read(domain="web\\udcff")[0].as_dict()["detail"] == noted.detail == lines(path)[0]["detail"]


def test_a_detail_that_contains_itself(events: EventLog) -> None:
    detail: dict[str, Any] = {}
    detail["self"] = detail
    events.emit("odd", detail=detail)
    assert events.flush()


def test_a_directory_that_cannot_be_made_does_not_hurt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    events = EventLog(tmp_path / "file" / "events.jsonl")
    for _ in range(3):
        events.emit("tick")
    assert events.flush()
    assert len(events.read()) == 3
    assert len([r for r in caplog.records if "memory only" in r.getMessage()]) == 1
    events.close()


def test_after_close_events_are_kept_in_memory(events: EventLog) -> None:
    events.close()
    events.emit("late")
    assert [e.event for e in events.read()] == ["late"]


def test_ids_are_unique_over_threads(events: EventLog) -> None:
    threads = [threading.Thread(target=lambda: [events.emit("tick") for _ in range(200)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [e.id for e in events.read(limit=2000)] == list(range(1, 1601))


def test_a_close_that_fails_sends_no_later_event_into_another_file(path: Path, tmp_path: Path) -> None:
    events = EventLog(path, max_bytes=200)
    with close_fails(tmp_path / "other") as closed:
        while not closed:
            events.emit("tick", "redis1")
            assert events.flush()
        events.emit("tock", "redis1")
        assert events.flush()
    assert len(closed) == 1
    assert [line["event"] for line in lines(path)] == ["tick", "tock"]
    assert lines(path.with_name("events.jsonl.1"))
    events.close()
