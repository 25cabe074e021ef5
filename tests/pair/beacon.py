"""The guest's beacon, and the frames that really leave its host."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from pair.hosts import PROJECT, in_namespace
from pair.wait import until

KINDS = ("ipv4", "ipv6", "arp", "vlan", "other")
GUEST_MAC = "00:16:3e:77:00:64"
GUEST_ADDRESS = "10.77.0.100"
SCRIPT = PROJECT / "tests" / "lab" / "beacon.py"
"""Runs in the namespace: captures behind the host's port, asks the beacon by frames of its own making."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame of the guest as it left a host. mono: this machine's CLOCK_MONOTONIC. kind: one of KINDS for a beacon
    frame, else `ethertype-0x....`. sequence: only of beacon frames."""

    mono: float
    kind: str
    sequence: int | None


@dataclass
class Listener:
    """Collects frames in the background."""

    process: subprocess.Popen[str]
    frames: list[Seen] = field(default_factory=list)

    def emit(self, rounds: int) -> None:
        """Let the guest emit rounds by itself, ten a second; 0 stops it."""
        self._tell(f"rounds {rounds}")

    def ask(self, sequence: int) -> None:
        """Ask the guest for one round with this number, which may get lost: nobody asks again."""
        self._tell(f"send {sequence}")

    def _tell(self, words: str) -> None:
        if self.process.stdin is None:
            raise RuntimeError("the listener has no input")
        self.process.stdin.write(f"{words}\n")
        self.process.stdin.flush()

    def between(self, begin: float = 0.0, end: float = float("inf"), kind: str | None = None) -> list[Seen]:
        """Frames between two moments, of one kind or of all."""
        return [f for f in list(self.frames) if begin <= f.mono < end and kind in (None, f.kind)]

    def wait_for_all(self, begin: float, timeout: float) -> None:
        """Wait until a beacon frame of every kind came after BEGIN."""

        def missing() -> list[str]:
            return [kind for kind in KINDS if not self.between(begin, kind=kind)]

        until("a frame of every kind", missing, lambda kinds: not kinds, timeout=timeout)


@contextlib.contextmanager
def listening(host: str) -> Iterator[Listener]:
    """A listener behind the cable of HOST to the guests' network; the beacon is silent afterwards."""
    words = [sys.executable, str(SCRIPT), f"{host}-g", "br-guests", GUEST_MAC, GUEST_ADDRESS]
    process = subprocess.Popen(
        in_namespace(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT
    )
    stdout, stdin = process.stdout, process.stdin
    if stdout is None or stdin is None or json.loads(stdout.readline() or "{}").get("kind") != "ready":
        process.kill()
        raise RuntimeError("the listener did not start")
    listener = Listener(process)

    def collect() -> None:
        for line in stdout:
            frame = json.loads(line)
            listener.frames.append(Seen(frame["time"], frame["kind"], frame["sequence"]))

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        with contextlib.suppress(BrokenPipeError):
            listener.emit(0)
            stdin.close()
        process.wait(10)
        thread.join(10)
