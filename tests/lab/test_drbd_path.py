"""What ADR 0007 rests on: DRBD's protocol C above a device that the backup stages, cut by markers in the stream of writes.

The pair's DRBD device is made for the test alone; guests and agents are not involved. `-s` shows the figures.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from bench.disk_cells import WRITES, figures, job_file
from bench.disk_pair import FIO
from lab_hosts import Host, Lines
from pair import bundle, drbd
from pair.hosts import HOSTS, on
from pair.wait import until

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
FOLDER = "/var/lib/remus-test-stage"
FILE = f"{FOLDER}/disk"
PYTHON = "/opt/remus/current/bin/python3"
MIB, BLOCK = 64, 4096
DEPTH, PERIOD = 8, 0.3
PATIENCE = 120.0
TAG_BYTES = 16


class Process:
    """A script on a host that answers in JSON lines."""

    def __init__(self, host: Host, command: str) -> None:
        self._process = host.start(command)
        assert self._process.stdout is not None
        self._lines = Lines(self._process.stdout)
        self.first = self.answer()

    def answer(self) -> Any:
        line = self._lines.next(PATIENCE)
        assert line is not None, "no answer from dom0"
        return line["ok"]

    def do(self, what: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what}).encode() + b"\n")
        self._process.stdin.flush()
        return self.answer()

    def end(self) -> None:
        """End of its input."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def close(self) -> None:
        self.end()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()


@dataclass
class Stack:
    """What DRBD is put on: the backup's stage, and loop devices on both hosts."""

    stage: Process
    lower: dict[str, str]

    def writer(self, mode: str) -> Process:
        return Process(Host(HOSTS[0]), f"exec python3 {FOLDER}/drbd_writer.py {drbd.DEVICE} {DEPTH} {PERIOD} {mode}")

    def blocks(self, host: str) -> list[bytes]:
        """The tags of all blocks of a host's disk but the marker."""
        script = (
            f"d = open('{FILE}', 'rb').read();"
            f" print(''.join(d[a : a + {TAG_BYTES}].hex() for a in range(0, len(d), {BLOCK})))"
        )
        text = bytes.fromhex(on(host, f'sync -f {FILE}; python3 -c "{script}"').strip())
        return [text[at : at + TAG_BYTES] for at in range(0, len(text) - TAG_BYTES, TAG_BYTES)]


@pytest.fixture
def stack(lab: dict[str, Any], host: Host, package: str) -> Iterator[Stack]:
    """Without DRBD yet."""
    stage: Process | None = None
    assert host.name == HOSTS[1]
    try:
        lower = {}
        for each in HOSTS:
            on(each, f"mkdir -p {FOLDER}")
            lower[each] = drbd.loop(each, FILE, MIB)
        on(HOSTS[0], f"cat >{FOLDER}/drbd_writer.py", stdin=(HERE / "drbd_writer.py").read_text())
        on(HOSTS[1], f"cat >{FOLDER}/drbd_stage.py", stdin=(HERE / "drbd_stage.py").read_text())
        on(HOSTS[1], "modprobe nbd")
        command = f"PYTHONPATH={package} exec {PYTHON} {FOLDER}/drbd_stage.py {FILE} {FOLDER}"
        stage = Process(host, command)
        yield Stack(stage, lower)
    finally:
        if stage is not None:
            stage.close()
        for each in HOSTS:
            drbd.unloop(each, FILE)
            on(each, f"rm -rf {FOLDER}")


@pytest.fixture
def mirrored(stack: Stack) -> Iterator[None]:
    """With DRBD above the stage."""
    with drbd.mirror({HOSTS[0]: stack.lower[HOSTS[0]], HOSTS[1]: stack.stage.first}):
        yield


def misplaced(writes: list[list[int]], arrived: list[list[int]]) -> tuple[int, int]:
    """Writes that arrived in an epoch after the one in which they were complete, and in one before that in which they began.
    A write that was under way at a marker may be on either side of it."""
    epochs = {write[0]: write[1] for write in arrived}
    late = sum(1 for number, _, _, done in writes if done and number in epochs and epochs[number] > done)
    early = sum(1 for number, _, began, _ in writes if number in epochs and epochs[number] < began)
    return late, early


def not_at_a_boundary(blocks: list[bytes], writes: list[list[int]], committed: int) -> list[int]:
    """Blocks whose content is not that of the end of an epoch. Each block's writes follow one another."""
    allowed: dict[int, set[int]] = defaultdict(lambda: {0})
    for number, block, began, done in writes:
        if done and done <= committed:
            allowed[block] = {number}
        elif began <= committed:
            allowed[block].add(number)
    return [at for at, tag in enumerate(blocks) if int.from_bytes(tag[:8], "little") not in allowed[at]]


def kept_from_it(said: dict[str, Any], writes: list[list[int]]) -> set[int]:
    """Blocks whose newest write had arrived and was dropped: the primary has not written them again since, alone."""
    arrived = {number for number, _ in said["arrived"]}
    newest = {block: number for number, block, _, _ in sorted(writes)}
    return {offset // BLOCK for offset in said["dropped"] if newest.get(offset // BLOCK) in arrived}


@pytest.mark.usefixtures("mirrored")
@pytest.mark.parametrize(("protocol", "mode"), [("C", "wait"), ("C", "go-on"), ("A", "wait")])
def test_markers_cut_the_stream_and_drbd_does_not_know_what_was_dropped(stack: Stack, protocol: str, mode: str) -> None:
    drbd.speak(protocol)
    writer = stack.writer(mode)
    until("epochs are committed", lambda: stack.stage.do("committed"), lambda seen: seen >= 5, timeout=PATIENCE)
    time.sleep(random.random())  # the cut comes at any time
    drbd.disconnect(HOSTS[1], force=True)
    said = stack.stage.do("drop")
    lost = stack.blocks(HOSTS[1])
    time.sleep(1)  # the primary goes on alone
    writer.end()
    done = writer.answer()
    writer.close()

    late, early = misplaced(done["writes"], said["arrived"])
    wrong = not_at_a_boundary(lost, done["writes"], said["committed"])
    markers = sorted(done["markers_ms"][: said["committed"]])

    stack.stage.do("through")
    before = drbd.state(HOSTS[0])
    drbd.disconnect(HOSTS[0])
    drbd.connect()
    drbd.wait_connected()
    mine, theirs = stack.blocks(HOSTS[0]), stack.blocks(HOSTS[1])
    different = [at for at, (one, other) in enumerate(zip(mine, theirs, strict=True)) if one != other]
    unseen = {offset // BLOCK for offset in said["dropped"]} & set(different)

    drbd.setup(HOSTS[1], f"invalidate {drbd.MINOR}")
    drbd.wait_connected(600, HOSTS[1])
    whole = stack.blocks(HOSTS[0]) == stack.blocks(HOSTS[1])
    found = {
        "protocol": protocol,
        "mode": mode,
        "writes": len(done["writes"]),
        "committed": said["committed"],
        "arrived": len(said["arrived"]),
        "late": late,
        "early": early,
        "not at a boundary": len(wrong),
        "dropped": len(said["dropped"]),
        "believed to differ, KiB": before.dirty,
        "different after resync": len(different),
        "of the dropped": len(unseen),
        "equal after a full resync": whole,
        "marker ms, median": round(median(markers), 2),
        "longest": round(markers[-1], 2),
    }
    print(json.dumps(found))
    assert said["committed"] >= 5
    assert late == 0, "a write that was complete before the marker came after it"
    if mode == "wait":
        assert (early, wrong) == (0, []), "a write from after the marker came before it"
    assert len(unseen) == len(different), "what differs is what was dropped"
    if len(kept_from_it(said, done["writes"])) > DEPTH:  # it knows of those that were under way
        assert different, "DRBD finds dropped writes by itself now: ADR 0007 can be looked at again"
    assert whole


def test_its_speed(stack: Stack) -> None:
    """fio on DRBD above the stage and, after it, above a loop device on both hosts."""
    bundle.unpack(HOSTS[0], FOLDER, bundle.packed(FIO))
    fio = f"{bundle.command(FOLDER, FIO)} --output-format=json -"
    job = job_file(drbd.DEVICE, WRITES, 4, MIB)
    found = []
    for theirs in (stack.stage.first, stack.lower[HOSTS[1]]):
        with drbd.mirror({HOSTS[0]: stack.lower[HOSTS[0]], HOSTS[1]: theirs}):
            found.append(figures(on(HOSTS[0], fio, stdin=job, timeout=300), WRITES))
    staged, plain = found
    for cell in WRITES:
        ours, theirs = staged[cell.name]["iops"], plain[cell.name]["iops"]
        print(
            f"{cell.name}: {ours:.0f} requests/s above the stage, {theirs:.0f} above a loop device, {ours / theirs:.2f}"
        )
