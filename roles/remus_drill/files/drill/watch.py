"""What runs beside the playbook for the time of a drill: a thread of looks for each host, and the client as a process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from drill import client, folder
from drill.looks import Looks
from drill.reach import Target

STEP = 0.1


class NotReady(Exception):
    """The drill must not begin. The message says what is missing, and what to do."""


def start(where: Path, program: list[str]) -> None:
    """Start it and wait until all of it works, at most `ready` seconds of the plan. program: how this package is called. Raises
    NotReady; nothing runs then."""
    with (where / "watch.log").open("w") as log:
        process = subprocess.Popen(
            [*program, "watch", str(where)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    missing = _missing(where)
    deadline = time.monotonic() + folder.plan(where)["ready"]
    while missing and time.monotonic() < deadline and process.poll() is None:
        time.sleep(STEP)
        missing = _missing(where)
    if missing or process.poll() is not None:
        stop(where, 15.0)
        words = (where / "watch.log").read_text().strip().splitlines()[-1:] or ["nothing"]
        raise NotReady("; ".join(missing) or f"it ended: {words[0]}")


def _missing(where: Path) -> list[str]:
    """What has not been seen yet."""
    plan = folder.plan(where)
    missing = []
    for host in plan["hosts"]:
        look = folder.last(folder.looks(where, host))
        if look is None or look.get("status") is None:
            why = look["error"] if look and look.get("error") else "no answer yet"
            missing.append(f"the agent of {host} is not reached from here ({why}). Next: try ssh as the inventory says")
    answers, words = 0, "no connection"
    for line in folder.lines(where / "client.jsonl"):
        answers += line["event"] == "answered" or (line["event"] == "probe" and line["code"] == 0)
        words = str(line.get("error") or line.get("words") or words)
    if not answers:
        missing.append(
            f"the guest does not answer its client ({words}). Next: correct remus_drill_target, or remus_drill_probe"
        )
    return missing


def stop(where: Path, patience: float) -> bool:
    """Have it end; True when it did in time."""
    (where / "stop").touch()
    deadline = time.monotonic() + patience
    while (where / "watching").exists():
        if time.monotonic() >= deadline:
            return False
        time.sleep(STEP)
    return True


def watch(where: Path, program: list[str]) -> int:
    """The process itself: until the file `stop` is there, SIGTERM, or the longest time is over."""
    (where / "watching").write_text(f"{os.getpid()}\n")
    try:
        _watch(where, program)
    finally:
        (where / "watching").unlink(missing_ok=True)
    return 0


def _watch(where: Path, program: list[str]) -> None:
    plan = folder.plan(where)
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: over.set())
    all_looks = [
        Looks(
            Target.of(host, said),
            [said["socket"], plan["guest"], plan["marks"]],
            folder.looks(where, host),
            plan["look_seconds"],
            over,
        )
        for host, said in plan["hosts"].items()
    ]
    for looks in all_looks:
        looks.thread.start()
    asking = subprocess.Popen(
        [*plan["prefix"], *program, "client", str(where)], stdin=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + plan["longest"]
    while not over.is_set() and not (where / "stop").exists() and time.monotonic() < deadline:
        over.wait(STEP)
    _end(asking, where, plan["client"]["grace"])
    over.set()
    for looks in all_looks:
        looks.thread.join(10)


def _end(process: subprocess.Popen[bytes], where: Path, grace: float) -> None:
    """The client sees the file as well; whoever stands between it and this process need not pass a signal on."""
    (where / "stop").touch()
    try:
        process.wait(2 * grace + 10)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_client(where: Path) -> int:
    """The client's process."""
    plan = folder.plan(where)
    facts: dict[str, Any] = {"key": f"remus-drill:{plan['id']}", **plan["client"]}
    deadline = time.monotonic() + plan["longest"]
    return client.main(where / "client.jsonl", facts, lambda: (where / "stop").exists() or time.monotonic() > deadline)


def settled(where: Path) -> list[str]:
    """What is missing until the guest is protected and answers as before the fault; empty when nothing is."""
    plan = folder.plan(where)
    looks = {host: folder.last(folder.looks(where, host)) or {} for host in plan["hosts"]}
    said = {host: (look.get("status") or {}) for host, look in looks.items()}
    owners = [host for host, one in said.items() if one.get("role") == "primary" and one.get("state") == "protected"]
    copies = [
        host for host, one in said.items() if one.get("role") == "backup" and one.get("state") in ("ready", "receiving")
    ]
    missing = []
    if len(owners) != 1 or not copies:
        words = ", ".join(
            f"{host} says {one.get('state')}"
            if one
            else f"{host} does not answer ({looks[host].get('error') or 'nothing yet'})"
            for host, one in said.items()
        )
        missing.append(f"{plan['guest']} is not protected: {words}")
    since = max((line["mono"] for line in folder.lines(where / "phases.jsonl")), default=0.0)
    good = [
        line["mono"]
        for line in folder.lines(where / "client.jsonl")
        if line["event"] == "answered" or (line["event"] == "probe" and line["code"] == 0)
    ]
    if not good or good[-1] < since:
        missing.append(f"{plan['guest']} has not answered its client since the fault was undone")
    return missing


def settle(where: Path, patience: float) -> list[str]:
    """Wait for it; what is still missing when the time is over, or nobody looks any more."""
    deadline = time.monotonic() + patience
    while missing := settled(where):
        if time.monotonic() >= deadline or not (where / "watching").exists():
            return missing
        time.sleep(0.5)
    return []
