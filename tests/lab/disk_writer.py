"""Writes to a block device inside dom0 as a guest would, past the page cache, and says how it went.

python3 disk_writer.py DEVICE random       blocks at random places of its first half until standard input ends; then one JSON line
python3 disk_writer.py DEVICE rewrite N    one block N times
"""

from __future__ import annotations

import json
import mmap
import os
import random
import select
import sys
import time

BLOCK = 4096


def main(device: str, what: str, times: str = "0") -> None:
    fd = os.open(device, os.O_RDWR | os.O_DIRECT)
    blocks = os.lseek(fd, 0, os.SEEK_END) // BLOCK
    memory = mmap.mmap(-1, BLOCK)
    longest, count = 0.0, 0
    print(json.dumps({"ok": "writing"}), flush=True)
    while count < int(times) if what == "rewrite" else not select.select([sys.stdin], [], [], 0.002)[0]:
        memory[:] = os.urandom(BLOCK)
        begun = time.monotonic()
        os.pwrite(fd, memory, (7 if what == "rewrite" else random.randrange(blocks // 2)) * BLOCK)
        longest = max(longest, time.monotonic() - begun)
        count += 1
    os.close(fd)
    print(json.dumps({"ok": {"writes": count, "longest": longest}}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
