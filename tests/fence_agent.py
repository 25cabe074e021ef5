#!/usr/bin/python3
"""A fence agent that obeys the contract of cluster managers, for a host that is a file: `on` or `off`.

Options: state (that file), password (must be `open sesame`), behave (what is wrong with it):
    fails    every action but metadata and monitor fails, and prints the password
    hangs    it starts a child, notes both process numbers in state.pids, and neither ends
    lies     off succeeds and changes nothing
    slow     off takes effect with the third status after it
    noisy    prints a lot
"""

import os
import subprocess
import sys
import time
from pathlib import Path

METADATA = """<?xml version="1.0" ?>
<resource-agent name="fence_file" shortdesc="A host that is a file">
<parameters>
{}
</parameters>
</resource-agent>
"""
OPTIONS = ("action", "state", "password", "behave")


def main() -> int:
    given = {}
    for line in sys.stdin:
        key, _, value = line.rstrip("\n").partition("=")
        given[key] = value
    if given["action"] == "metadata":
        print(METADATA.format("\n".join(f'<parameter name="{name}" unique="0" />' for name in OPTIONS)))
        return 0
    if given.get("password") != "open sesame":
        print("wrong password", file=sys.stderr)
        return 1
    return act(given["action"], Path(given["state"]), given.get("behave", ""), given["password"])


def act(action: str, state: Path, behave: str, password: str) -> int:
    if behave == "hangs":
        child = subprocess.Popen(["sleep", "600"])
        Path(f"{state}.pids").write_text(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    if behave == "noisy":
        sys.stdout.write("x" * 3_000_000)
        sys.stderr.write("y" * 3_000_000)
    if behave == "fails" and action != "monitor":
        print(f"could not log in with {password}", file=sys.stderr)
        return 1
    if action == "off" and behave != "lies":
        state.write_text("going 2" if behave == "slow" else "off")
    return status(state) if action == "status" else 0


def status(state: Path) -> int:
    now = state.read_text()
    if now.startswith("going "):
        left = int(now.split()[1])
        state.write_text(f"going {left - 1}" if left else "off")
    return 2 if now == "off" else 0


sys.exit(main())
