#!/usr/bin/env python3
"""One measurement in the primary's dom0; the raw figures go to standard output as JSON. Standard library only.

    on_host.py stock --domain redis1 --peer 10.78.0.12 --ssh 'ssh -F FILE' --interval 20 --seconds 30
    on_host.py remus --domain redis1 --peer beta --interval 20 --seconds 30

The guest must run here, unprotected, and is left so. After a stock run the half-built copy on the other host is destroyed:
its receiver is killed first, so that the end of the stream does not activate it beside the running guest.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

SOCKET = "/run/remus/agent.sock"
SEED_LIMIT = 600.0
"""Seconds after which a seeding counts as failed."""
CLEAN_UP = r"""
for each in /proc/[0-9]*; do
    words=$(tr '\0' ' ' <"$each/cmdline" 2>/dev/null) || continue
    case $words in
        'xl migrate-receive '* | */'xl migrate-receive '*) kill -KILL "${each#/proc/}" ;;
    esac
done
for name in $(xl list | awk 'NR > 1 { print $1 }'); do
    case $name in
        DOMAIN | DOMAIN--incoming) xl destroy "$name" ;;
    esac
done
xl list
"""
"""On the other host: end the receiver so that it cannot activate anything, then remove what it had built."""


class Failed(Exception):
    """The measurement could not be made; the message says why and what was left behind."""


def domain_state(domain: str) -> str:
    """The letters of `xl list` for a domain here."""
    return (
        subprocess.run(["xl", "list", domain], capture_output=True, text=True, timeout=60, check=True)
        .stdout.splitlines()[1]
        .split()[4]
    )


class Log:
    """The output of a process, each line with the time at which it came (CLOCK_MONOTONIC, nanoseconds)."""

    def __init__(self, stream: Any) -> None:
        self.lines: list[tuple[int, str]] = []
        self._fd: int = stream.fileno()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        rest = b""
        while data := os.read(self._fd, 65536):
            now = time.monotonic_ns()
            *whole, rest = re.split(rb"[\r\n]+", rest + data)
            self.lines += [(now, line.decode(errors="replace")) for line in whole if line]

    def has(self, text: str) -> bool:
        """Whether a line with TEXT came."""
        return any(text in line for _, line in list(self.lines))

    def wait(self) -> None:
        """Until the process has closed its output."""
        self._thread.join(30)


def stock(options: argparse.Namespace) -> dict[str, Any]:
    """One run of `xl remus`."""
    words = ["xl", "-vvv", "remus", "-F", "-n", "-d", "-i", str(options.interval), "-s", options.ssh]
    words += [options.domain, options.peer]
    started = time.monotonic_ns()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    log = Log(process.stdout)
    try:
        wait_for(lambda: log.has("Checkpointed save"), SEED_LIMIT, process, log)
        window = time.monotonic_ns()
        wait_for(lambda: time.monotonic_ns() - window >= options.seconds * 1e9, options.seconds + 60, process, log)
        ended = time.monotonic_ns()
    finally:
        left = clean_up(options, process)
    log.wait()
    return {
        "kind": "stock",
        "interval_ms": options.interval,
        "started_ns": started,
        "window_ns": [window, ended],
        "lines": [line for line in log.lines if line[0] <= ended],
        "left": left,
    }


def wait_for(done: Any, limit: float, process: subprocess.Popen[bytes], log: Log) -> None:
    """Poll until DONE says so. Raises Failed when the process ends or the time is over."""
    deadline = time.monotonic() + limit
    while not done():
        said = " | ".join(line for _, line in log.lines[-15:])
        if process.poll() is not None:
            raise Failed(f"xl remus ended with status {process.returncode}: {said}")
        if time.monotonic() > deadline:
            raise Failed(f"xl remus: not in {limit:.0f} s: {said}")
        time.sleep(0.1)


def clean_up(options: argparse.Namespace, process: subprocess.Popen[bytes]) -> str:
    """No copy on the other host, no `xl remus` here, the guest running here. Returns the other host's `xl list`."""
    script = CLEAN_UP.replace("DOMAIN", options.domain)
    there = subprocess.run(
        [*shlex.split(options.ssh), options.peer, "sh"],
        input=script,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    if there.returncode != 0:
        raise Failed(f"cannot clean up on {options.peer}: {there.stderr}; look there for {options.domain}--incoming")
    try:
        process.wait(120)  # it meets a closed connection, and resumes the guest
    except subprocess.TimeoutExpired as error:
        raise Failed(f"xl remus (pid {process.pid}) does not end; the guest may be suspended") from error
    deadline = time.monotonic() + 60
    while set(domain_state(options.domain)) & set("psd"):
        if time.monotonic() > deadline:
            raise Failed(f"{options.domain} is left in state {domain_state(options.domain)}")
        time.sleep(0.5)
    return there.stdout


def ask(method: str, patience: float, **params: Any) -> dict[str, Any]:
    """The result of a control request."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(patience)
        connection.connect(SOCKET)
        connection.sendall(json.dumps({"version": 1, "id": 1, "method": method, "params": params}).encode() + b"\n")
        for line in connection.makefile("rb"):
            answer = json.loads(line)
            if "result" in answer:
                result: dict[str, Any] = answer["result"]
                return result
            if "error" in answer:
                raise Failed(f"{method}: {answer['error']}")
    raise Failed(f"{method}: the agent closed its control socket")


def remus(options: argparse.Namespace) -> dict[str, Any]:
    """One run of the agent."""
    started = time.monotonic_ns()
    wanted = {"domain": options.domain, "peer": options.peer, "interval_ms": options.interval}
    first = ask("protect", SEED_LIMIT, **wanted, wait=True, timeout=SEED_LIMIT)
    seeded = time.monotonic_ns()
    try:
        time.sleep(2)  # the first epochs carry what seeding left over; stock's window begins after them too
        before, window = ask("status", 60, domain=options.domain), time.monotonic_ns()
        time.sleep(options.seconds)
        after, ended = ask("status", 60, domain=options.domain), time.monotonic_ns()
        records = ask("records", 60, domain=options.domain, limit=4096)["epochs"]
    finally:
        ask("unprotect", 300, domain=options.domain)
    low, high = before["committed_epoch"], after["committed_epoch"]
    return {
        "kind": "remus",
        "interval_ms": first["interval_ms"],
        "started_ns": started,
        "seeded_ns": seeded,
        "window_ns": [window, ended],
        "committed": [low, high],
        "epochs": [record for record in records if low < record["epoch"] <= high],
    }


def interrupt(number: int, _frame: object) -> None:
    """Told to stop: leave nothing behind, then end."""
    raise Failed(f"interrupted by {signal.Signals(number).name}")


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="One measurement in the primary's dom0.")
    parser.add_argument("kind", choices=["stock", "remus"])
    parser.add_argument("--domain", required=True)
    parser.add_argument("--peer", required=True, help="stock: the other host's address; remus: its name")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--interval", type=int, default=20, help="milliseconds between checkpoints")
    parser.add_argument("--ssh", default="ssh", help="stock: how to reach the other host")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        figures = stock(options) if options.kind == "stock" else remus(options)
    except Failed as error:
        sys.stderr.write(f"{options.kind}: {error}\n")
        return 1
    json.dump(figures, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
