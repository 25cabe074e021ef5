"""What pg_amcheck says of the guest's database: Debian's tool on this machine, PostgreSQL's amcheck in the guest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from proof.rows import DATABASE, USER


class NoAmcheck(Exception):
    """The check could not be made."""


def tool() -> str:
    """Path of pg_amcheck, the newest where there are several. Raises NoAmcheck."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_amcheck"), key=lambda path: int(path.parts[4]))
    path = str(found[-1]) if found else shutil.which("pg_amcheck")
    if path is None:
        raise NoAmcheck("pg_amcheck is not installed (package postgresql-client)")
    return path


def amcheck(address: tuple[str, int], timeout: float = 1500) -> list[str]:
    """Its findings, line by line; nothing when every table and index is whole. Each row is looked up in each index.
    Raises NoAmcheck where it did not come to a finding."""
    words = [tool(), "--install-missing", "--heapallindexed", "--no-password", "--username", USER]
    words += ["--host", address[0], "--port", str(address[1]), "--database", DATABASE]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise NoAmcheck(f"pg_amcheck found no end in {timeout:.0f} s") from error
    if done.returncode == 0:
        return []
    if done.returncode != 2 or not done.stdout.strip():  # 2: it ran, and something is damaged
        raise NoAmcheck(f"pg_amcheck ended with status {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return [line for line in done.stdout.splitlines() if line.strip()]
