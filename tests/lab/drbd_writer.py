"""A guest's writes and its barriers, on a DRBD device in the primary's dom0. Standard library only.

    python3 drbd_writer.py DEVICE THREADS PERIOD wait|go-on

Each thread writes blocks of 4 KiB of its own part of the disk, each with its number. Every PERIOD seconds the guest is
suspended: nothing new is written, what is under way goes on; a marker with the epoch goes to the last block. `wait`: the
guest resumes when the marker is complete; `go-on`: when it is on its way. Prints {"ok": "runs"}, ends with its standard
input, then prints all writes as [number, block, epoch when it began, epoch when it was complete] and the milliseconds that
each marker took.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import struct
import sys
import threading
import time

MAGIC = 0x52454D5553454E44
TAG = struct.Struct("<QQ")
BLOCK = 4096


class Writers:
    """epoch: the running one. A number is given and its epoch read under one lock, so that both agree."""

    def __init__(self, device: str, threads: int) -> None:
        self.file = os.open(device, os.O_RDWR | os.O_DIRECT)
        self.blocks = os.lseek(self.file, 0, os.SEEK_END) // BLOCK
        self.epoch = 1
        self.running = threading.Event()
        self.running.set()
        self.stop = threading.Event()
        self.writes: list[list[int]] = []
        self.markers: list[float] = []
        self._lock = threading.Lock()
        self._number = 0
        share = (self.blocks - 1) // threads
        parts = [range(share * each, share * (each + 1)) for each in range(threads)]
        self.threads = [threading.Thread(target=self._write, args=(part,), daemon=True) for part in parts]

    def _write(self, part: range) -> None:
        buffer, chance = mmap.mmap(-1, BLOCK), random.Random(part.start)
        while not self.stop.is_set():
            self.running.wait()
            block = chance.choice(part)
            with self._lock:
                if not self.running.is_set():
                    continue
                self._number += 1
                write = [self._number, block, self.epoch, 0]
                self.writes.append(write)
            for at in range(0, BLOCK, TAG.size):
                TAG.pack_into(buffer, at, write[0], block)
            os.pwrite(self.file, buffer, block * BLOCK)
            with self._lock:
                write[3] = self.epoch

    def barrier(self, *, wait: bool) -> None:
        """The end of the running epoch."""
        self.running.clear()
        with self._lock:
            number, self.epoch = self.epoch, self.epoch + 1
        buffer = mmap.mmap(-1, BLOCK)
        for at in range(0, BLOCK, TAG.size):
            TAG.pack_into(buffer, at, MAGIC, number)
        began = time.monotonic()
        marker = threading.Thread(target=os.pwrite, args=(self.file, buffer, (self.blocks - 1) * BLOCK))
        marker.start()
        if wait:
            marker.join()
        else:
            time.sleep(0.002)  # it is on its way, as far as anybody can know without waiting for it
            self.running.set()
            marker.join()
        self.markers.append((time.monotonic() - began) * 1000)
        self.running.set()


def main(device: str, threads: str, period: str, mode: str) -> None:
    """Run from the command line."""
    writers = Writers(device, int(threads))
    for thread in writers.threads:
        thread.start()
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    print(json.dumps({"ok": "runs"}), flush=True)
    while not ended.wait(float(period)):
        writers.barrier(wait=mode == "wait")
    writers.stop.set()
    for thread in writers.threads:
        thread.join(60)
    print(json.dumps({"ok": {"writes": writers.writes, "markers_ms": writers.markers}}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:5])
