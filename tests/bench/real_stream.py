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
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pair.guest import CONFIGURATION, answers, come_home, forget
from pair.hosts import GUEST, HOSTS, REDIS, in_namespace, on, ssh_config
from pair.wait import until

BANNER = "xl migration receiver ready, send binary domain data."
FOLDER = "/run/remus-real-stream"
TAKE = f"#!/bin/sh\necho '{BANNER}'\nexec cat >{FOLDER}/pipe\n"
FILL = """
local seed = redis.call('GET', 'seed')
for number = tonumber(ARGV[1]), tonumber(ARGV[2]) do redis.call('SET', 'value' .. number, number .. seed) end
return redis.call('DBSIZE')
"""
STEP = 32
"""Values of a MiB that one script sets: some seconds in emulation."""


def say(text: str, started: float) -> None:
    print(f"[{time.monotonic() - started:6.1f} s] {text}", flush=True)


def redis(*words: str, stdin: bytes | None = None) -> None:
    host, _, port = REDIS.partition(":")
    subprocess.run(in_namespace("redis-cli", "-h", host, "-p", port, *words), input=stdin, check=True, timeout=600)


def fill(mib: int, started: float) -> None:
    """Values of random bytes, each different, in three quarters of the guest's memory."""
    redis("CONFIG", "SET", "maxmemory", "0")
    redis("-x", "SET", "seed", stdin=os.urandom((1 << 20) - 16))
    last = mib * 3 // 4
    for first in range(1, last + 1, STEP):
        redis("EVAL", FILL, "0", str(first), str(min(first + STEP - 1, last)))
        say(f"{min(first + STEP - 1, last)} of {last} MiB of data", started)


def take(file: Path, checkpoints: int, started: float) -> None:
    """Everything that xl remus writes until it has taken so many checkpoints."""
    on("alpha", f"rm -rf {FOLDER} && mkdir -m 0700 {FOLDER} && mkfifo {FOLDER}/pipe")
    on("alpha", f"cat >{FOLDER}/take && chmod 0700 {FOLDER}/take", stdin=TAKE)
    words = ["ssh", "-F", str(ssh_config()), "-o", "BatchMode=yes", "alpha", f"exec cat {FOLDER}/pipe"]
    with file.open("wb") as out, subprocess.Popen(words, stdout=out) as reader:
        watch = threading.Timer(3600, reader.kill)
        watch.start()
        command = f"xl -vvv remus -F -n -d -i 100 -s '' {GUEST} {FOLDER}/take"
        on("alpha", f"(setsid {command} >{FOLDER}/log 2>&1 </dev/null) >/dev/null 2>&1 &")

        def taken() -> int:
            say(f"{file.stat().st_size >> 20} MiB", started)
            return int(on("alpha", f"grep -c 'Checkpointed save' {FOLDER}/log || true").strip())

        until("the checkpoints", taken, lambda count: count >= checkpoints, timeout=3000)
        on("alpha", f"pkill -KILL -x xl; pkill -KILL -x libxl-save-help; xl destroy {GUEST}", timeout=180)
        reader.wait(600)
        watch.cancel()
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
