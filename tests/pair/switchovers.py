"""Moves the protected guest there and back by the playbook, and reads from both hosts meanwhile how many of it run."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pair import agent, wait
from pair.guest import copies, running_copies
from pair.hosts import GUEST, HOSTS, PROJECT, CommandFailed, run
from pair.load import acknowledged
from pair.protection import wait_protected

REPLIES = 40
"""That a client must get after each move before the next one."""
PLAY_SECONDS = 1500.0
LOOK_SECONDS = 1.0
"""Between two looks at both hosts, each of which takes their only processors for a second or two."""


@dataclass(frozen=True)
class Move:
    """One switchover. at: seconds since the epoch when it was asked for. seconds: of the whole playbook, with the protection the
    other way round. running: names of the hosts where the guest runs afterwards. protected: whether it is, afterwards."""

    at: float
    source: str
    target: str
    seconds: float
    running: list[str]
    protected: bool


class Looking(threading.Thread):
    """Reads both hosts again and again, the first one twice: a guest that moves is seen on both only if both run it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.looks = 0
        self.two: list[list[str]] = []
        self._ending = threading.Event()

    def run(self) -> None:
        """Look until `end`."""
        while not self._ending.wait(LOOK_SECONDS):
            try:
                seen = [_domids(host) for host in (*HOSTS, HOSTS[0])]
            except CommandFailed:
                continue
            self.looks += 1
            if seen[1] and seen[0] & seen[2]:
                self.two.append([f"{HOSTS[0]}: {sorted(seen[0] & seen[2])}", f"{HOSTS[1]}: {sorted(seen[1])}"])

    def end(self) -> None:
        """Stop looking."""
        self._ending.set()
        self.join(300)


def _domids(host: str) -> set[int]:
    return {copy.domid for copy in copies(host) if copy.runs}


def owner() -> str:
    """The host where the guest is protected."""
    return next(host for host in HOSTS if agent.status(host)["role"] == "primary")


def switchovers(results: Path, count: int) -> None:
    """Move it so many times; what was seen goes into RESULTS/moves.json. Raises CommandFailed when one fails."""
    history = results / "history.jsonl"
    moves: list[Move] = []
    looking = Looking()
    looking.start()
    try:
        for _ in range(count):
            source = owner()
            target = next(host for host in HOSTS if host != source)
            started, at = time.monotonic(), time.time()
            _play(target)
            seconds = time.monotonic() - started
            wait_protected(host=target)
            moves.append(
                Move(
                    at,
                    source,
                    target,
                    round(seconds, 3),
                    [copy.host for copy in running_copies()],
                    agent.protected(agent.status(target)),
                )
            )
            before = acknowledged(history)
            wait.until(
                f"{REPLIES} replies after move {len(moves)}",
                lambda: acknowledged(history),
                lambda seen, before=before: seen >= before + REPLIES,  # type: ignore[misc]
                timeout=600,
            )
    finally:
        looking.end()
        said = {"moves": [asdict(move) for move in moves], "looks": looking.looks, "two": looking.two}
        (results / "moves.json").write_text(json.dumps(said, indent=2) + "\n")


def _play(target: str) -> None:
    inventory = os.environ.get("REMUS_INVENTORY", str(PROJECT / "inventories" / "lab"))
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    words = [program, "-i", inventory, "playbooks/switchover.yml"]
    words += ["-e", f"remus_domain={GUEST}", "-e", f"remus_switchover_to={target}"]
    run(["env", "-u", "ANSIBLE_CONFIG", *words], timeout=PLAY_SECONDS)
