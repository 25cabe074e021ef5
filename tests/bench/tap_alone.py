#!/usr/bin/env python3
"""The write tap without kernel, mirror and backup: its own limit. Serves a session that has nothing to copy, whose epochs
are taken and thrown away as fast as the tap hands them out.

    tap_alone.py SOCKET MIB [EPOCH_SECONDS]

Runs with the package's folder on PYTHONPATH. Prints `ready` when a client may connect and ends with its standard input;
then it prints what it has served, as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

from remus_agent.adapters import turns
from remus_agent.adapters.disk.tap import TapLimits
from remus_agent.adapters.disk.tap_server import TapServer
from remus_agent.protocol.disk.pieces import DiskEnd
from remus_agent.protocol.disk.regions import RegionMap, map_bytes
from remus_agent.protocol.disk.tap_log import FIRST_EPOCH, TapLog
from remus_agent.protocol.nbd.messages import Export

NAME = "alone"
MIB = 1 << 20


class Drain(threading.Thread):
    """Ends epochs at an interval and takes everything, as the sender of a session does; commits at once."""

    def __init__(self, tap_log: TapLog, lock: threading.Lock, seconds: float) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self.epochs = 0
        self.stop = threading.Event()
        self._log = tap_log
        self._lock = lock
        self._seconds = seconds

    def run(self) -> None:
        """Until `stop` is set, or the log has overflowed."""
        epoch, due = FIRST_EPOCH, time.monotonic() + self._seconds
        while not self.stop.is_set():
            with self._lock:
                if not self._log.in_session:
                    return
                if time.monotonic() >= due:
                    self._log.barrier(epoch)
                    epoch, due = epoch + 1, time.monotonic() + self._seconds
                packing = self._log.take()
            if packing is None:
                self.stop.wait(0.005)
                continue
            piece = packing()
            if isinstance(piece, DiskEnd):
                self.bytes += piece.data_bytes
                self.epochs += 1
                with self._lock:
                    self._log.committed(piece.epoch)


def main(path: str, mib: str, seconds: str = "0.5") -> None:
    """Run from the command line."""
    turns.shorten()
    size, lock = int(mib) * MIB, threading.Lock()
    regions = RegionMap.create(bytearray(map_bytes(size)), "00000000-0000-0000-0000-000000000001", size)
    limits = TapLimits()
    tap_log = TapLog(regions, 512, limit=limits.log_bytes, early=limits.early_bytes)
    tap_log.begin(same_base=True)
    server = TapServer(Path(path), Export(NAME, size, 512), tap_log, lock, lambda _waiting: None, lambda: None)
    server.start()
    drain = Drain(tap_log, lock, float(seconds))
    drain.start()
    print("ready", flush=True)
    sys.stdin.read()
    drain.stop.set()
    drain.join(10)
    server.stop()
    said = {"bytes": drain.bytes, "epochs": drain.epochs, "overflowed": tap_log.overflowed}
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
