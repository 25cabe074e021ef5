"""The guest's Redis, asked from the lab's network."""

from __future__ import annotations

from pair.hosts import REDIS, in_namespace, run

HOST, _, PORT = REDIS.partition(":")


def command(*words: str, seconds: float = 60, host: str = HOST) -> list[str]:
    """The command line that lets redis-cli say something, given up after so many seconds. host: another guest's address."""
    return in_namespace("timeout", f"{seconds:g}", "redis-cli", "-h", host, "-p", PORT, *words)


def answers(*lines: str) -> list[str]:
    """The answers to some commands, in one connection, word by word."""
    return run(command(), stdin="\n".join(lines) + "\n").split()
