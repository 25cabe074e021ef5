"""A stand-in for Xen's libxl-save-helper --save-domain: the same messages, the same order, a PV guest of its own.

FAKE_HELPER holds JSON: pages (of the guest), dirty (pages of an epoch), fault (what goes wrong) and where, a place:
`static`, `seed` (in its last quarter), `copy` (while the guest is down), `after` (when it runs again), `wait` (between epochs).
without: pages that an epoch names and does not hold.
Faults: die, hang, give-up, nonsense, deaf (SIGTERM is ignored as well); at the end of each epoch: no-checkpoint, cut
(half a record), torn (a record that cannot be one). `cleaned` is a file that is
written when log-dirty is switched off, `started` one that holds the arguments."""

from __future__ import annotations

import errno
import json
import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import NoReturn

PLAN = {"pages": 40, "dirty": 3, "fault": None, "where": None, "precopy": 1, "without": 0} | json.loads(
    os.environ["FAKE_HELPER"]
)
SUSPEND, POSTCOPY, CHECKPOINT, COMPLETE = 3, 4, 5, 10
IO = int(sys.argv[2])
waiting = False


def say(number: int, body: bytes = b"") -> None:
    message = struct.pack("<H", number) + body
    os.write(1, struct.pack("<H", len(message)) + message)


def text(value: str) -> bytes:
    raw = value.encode() + b"\0"
    return struct.pack("<I", len(raw)) + raw


def log(level: int, words: str, code: int = -1) -> None:
    say(1, struct.pack("<Ii", level, code) + text("xc") + text(words))


def answer() -> int:
    global waiting  # noqa: PLW0603 - the signal handler must know
    waiting = True
    raw = os.read(0, 4)
    waiting = False
    if len(raw) < 4:
        os._exit(254)
    return int(struct.unpack("<i", raw)[0])


def terminated(*_: object) -> None:
    if waiting:
        os._exit(254)  # read() is interrupted, and the helper takes that for the end of its parent
    os.dup2(os.open("/dev/null", os.O_RDONLY), IO)


def write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(IO, view) :]


def record(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def page_data(first: int, count: int, fill: int) -> bytes:
    pfns = b"".join(struct.pack("<Q", pfn) for pfn in range(first, first + count))
    return record(1, struct.pack("<II", count, 0) + pfns + bytes([fill]) * (4096 * count))


def fault(where: str) -> None:
    if PLAN["where"] != where:
        return
    match PLAN["fault"]:
        case "die":
            print("helper: assertion failed", file=sys.stderr, flush=True)
            os._exit(3)
        case "hang" | "deaf" as how:
            if how == "deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while os.getppid() > 1:
                time.sleep(0.02)
                if how == "hang" and not os.path.sameopenfile(IO, CLONE):
                    raise OSError(errno.EBADF, "terminated")
        case "give-up":
            log(8, "Failed to retrieve logdirty bitmap", errno.EINVAL)
            raise OSError(errno.EINVAL, "gave up")
        case "nonsense":
            say(77)


def end(status: int, code: int) -> NoReturn:
    if "cleaned" in PLAN:
        Path(PLAN["cleaned"]).touch()
    say(COMPLETE, struct.pack("<ii", status, code))
    answer()
    os._exit(0)


def save() -> None:
    write(struct.pack(">QIIHHI", 2**64 - 1, 0x58454E46, 3, 0, 0, 0) + struct.pack("<IHHII", 1, 12, 0, 4, 17))
    write(record(2, struct.pack("<BB6x", 8, 4)) + record(0x11, bytes(24)) + record(0x12, bytes(16)))
    fault("static")
    write(record(0x10))
    pages = PLAN["pages"]
    write(record(3, struct.pack("<II", 0, pages - 1) + struct.pack("<Q", 9) * -(-pages // 512)))
    log(4, "precopy")
    for turn in range(PLAN["precopy"]):
        for first in range(0, pages, 16):
            say(2, text("xc") + text("Frames iteration 0") + struct.pack("<QQ", first, pages))
            write(page_data(first, min(16, pages - first), 1 + turn))
            if first > pages * 3 // 4:
                fault("seed")
    epoch = 0
    while True:
        epoch += 1
        say(SUSPEND)
        if answer() == 0:
            log(8, "save callback suspend() failed: 0")
            return end(-1, errno.EINTR)
        fault("copy")
        for first in range(0, PLAN["dirty"], 16):
            write(page_data(first, min(16, PLAN["dirty"] - first), 100 + epoch))
        if PLAN["without"]:
            gone = b"".join(struct.pack("<Q", 0xF << 60 | pfn) for pfn in range(PLAN["without"]))
            write(record(1, struct.pack("<II", PLAN["without"], 0) + gone))
        write(record(8, bytes(24)) + record(7, bytes(4096)) + record(4, struct.pack("<II", 0, 0) + bytes(5168)))
        end_record = {"no-checkpoint": b"", "cut": record(0xE)[:4], "torn": struct.pack("<III", 1, 12, 9) + bytes(12)}
        write(end_record.get(PLAN["fault"], record(0xE)))
        say(POSTCOPY)
        if answer() <= 0:
            return end(0, 0)
        fault("after")
        say(CHECKPOINT)
        if PLAN["where"] == "wait" and PLAN["fault"] == "die":
            os._exit(3)
        if answer() <= 0:
            return end(0, 0)


CLONE = os.dup(IO)
signal.signal(signal.SIGTERM, terminated)
if "started" in PLAN:
    Path(PLAN["started"]).write_text(" ".join(sys.argv[1:]))
log(1, "starting save")
try:
    save()
except OSError as problem:
    end(-1, problem.errno or 0)
