#!/usr/bin/env python3
"""Takes a real stream of stock `xl remus` from the lab, of a guest as large as wanted and full of data, for `stream_speed.py`.

    real_stream.py FILE [--mib 1024] [--checkpoints 20]

The lab must be up, with hosts that have room for the guest (ansible-playbook playbooks/lab.yml -e xen_lab_memory=3072). The
guest on alpha is started anew with that much memory, its Redis filled to three quarters of it, protected by `xl remus -Fnd` into
FILE, and afterwards started as it was."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pair import redis, stock_remus
from pair.guest import CONFIGURATION, answers, come_home, forget
from pair.hosts import GUEST, HOSTS, on, over_ssh, run, succeeds
from pair.wait import until

FOLDER = "/run/remus-real-stream"
TAKE = f"mkfifo {FOLDER}/pipe\necho '{stock_remus.BANNER}'\nexec cat >{FOLDER}/pipe"
FILL = """
local seed = redis.call('GET', 'seed')
for number = tonumber(ARGV[1]), tonumber(ARGV[2]) do redis.call('SET', 'value' .. number, number .. seed) end
return redis.call('DBSIZE')
"""
STEP = 32
"""Values of a MiB that one script sets: some seconds in emulation."""


def say(text: str, started: float) -> None:
    print(f"[{time.monotonic() - started:6.1f} s] {text}", flush=True)


def fill(mib: int, started: float) -> None:
    """Values of random bytes, each different, in three quarters of the guest's memory."""
    redis.answers("CONFIG SET maxmemory 0")
    subprocess.run(redis.command("-x", "SET", "seed"), input=os.urandom((1 << 20) - 16), check=True)
    last = mib * 3 // 4
    for first in range(1, last + 1, STEP):
        run(redis.command("EVAL", FILL, "0", str(first), str(min(first + STEP - 1, last)), seconds=600), timeout=660)
        say(f"{min(first + STEP - 1, last)} of {last} MiB of data", started)


def take(file: Path, checkpoints: int, started: float) -> None:
    """Everything that xl remus writes until it has taken so many checkpoints."""
    stock_remus.start(FOLDER, TAKE)
    until("the pipe", lambda: succeeds("alpha", f"test -p {FOLDER}/pipe"), timeout=120)
    with file.open("wb") as out, subprocess.Popen(over_ssh("alpha", f"exec cat {FOLDER}/pipe"), stdout=out) as reader:
        say("xl remus writes", started)
        try:
            stock_remus.wait_for_checkpoints(FOLDER, checkpoints, 3000)
            on("alpha", f"{stock_remus.KILL}; xl destroy {GUEST}", timeout=180)
            reader.wait(600)
        finally:
            reader.kill()
    on("alpha", f"rm -rf {FOLDER}")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--mib", type=int, default=1024, help="memory of the guest")
    parser.add_argument("--checkpoints", type=int, default=20, help="checkpoints to take")
    options = parser.parse_args()
    started = time.monotonic()
    for host in HOSTS:
        forget(host)
    larger = f"s/^\\(memory\\|maxmem\\) = .*/\\1 = {options.mib}/"
    on("alpha", f"sed {shlex.quote(larger)} {CONFIGURATION} >/run/large.cfg && xl create /run/large.cfg", timeout=300)
    try:
        until("the guest answers", answers, timeout=300)
        fill(options.mib, started)
        take(options.file, options.checkpoints, started)
    finally:
        come_home()
    say(f"{options.file}: {options.file.stat().st_size >> 20} MiB", started)


if __name__ == "__main__":
    main()
