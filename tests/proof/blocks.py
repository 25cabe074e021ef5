#!/usr/bin/env python3
"""Looks at block devices (or image files) that nothing writes to: is the file system clean, are two of them equal?

    blocks.py fsck PATH      the file system is clean; prints e2fsck's words and ends with 1 when it is not
    blocks.py digest PATH    a JSON object with the digests of all its blocks, to be compared with those of another host
    blocks.py compare A B    both are equal; prints the ranges that differ and ends with 1 when they are not

Ends with 2 when it could not look. It is one file of the standard library, so that a host can be given it over ssh:
`ssh HOST python3 - digest /dev/... < blocks.py`.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

CHUNK = 1 << 20
UNREPLAYED = "skipping journal recovery"
"""What e2fsck says when the guest did not unmount: what it checked is not what the guest would see."""


class CannotLook(Exception):
    """The device or a tool is missing, or it does not come to an end."""


@dataclass(frozen=True, slots=True)
class Digests:
    """A device's content. sha256: of each chunk of CHUNK bytes in turn, the last may be shorter."""

    size: int
    chunk: int
    sha256: list[str]

    def as_json(self) -> str:
        """For the other side of an ssh connection."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Digests:
        """The opposite of as_json."""
        return cls(**json.loads(text))


def fsck(path: Path, timeout: float = 600) -> str:
    """What `e2fsck -fn` says of an ext4 file system that is not clean; empty when it is. Raises CannotLook."""
    if not path.exists():
        raise CannotLook(f"{path} does not exist")
    try:
        done = subprocess.run(
            ["e2fsck", "-f", "-n", str(path)], capture_output=True, text=True, timeout=timeout, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise CannotLook(f"e2fsck of {path}: {error}") from error
    said = f"{done.stderr}{done.stdout}".strip()
    if done.returncode == 0 and UNREPLAYED not in said:
        return ""
    return said or f"e2fsck ended with status {done.returncode}"


def digests(path: Path, chunk: int = CHUNK) -> Digests:
    """Digests of all blocks of a device or file. Raises CannotLook."""
    found, size = [], 0
    try:
        with path.open("rb", buffering=chunk) as file:
            while data := file.read(chunk):
                found.append(hashlib.sha256(data).hexdigest())
                size += len(data)
    except OSError as error:
        raise CannotLook(f"{path}: {error}") from error
    return Digests(size, chunk, found)


def differences(one: Digests, other: Digests) -> list[str]:
    """The ranges of bytes in which two devices differ, in words; nothing when all blocks are equal."""
    if one.chunk != other.chunk:
        raise ValueError(f"digests of chunks of {one.chunk} and of {other.chunk} bytes cannot be compared")
    found = []
    if one.size != other.size:
        found.append(f"{one.size} bytes against {other.size}")
    longer = max(len(one.sha256), len(other.sha256))
    equal = [one.sha256[at : at + 1] == other.sha256[at : at + 1] for at in range(longer)]
    at = 0
    for same, group in groupby(equal):
        begin, at = at, at + len(list(group))
        if not same:
            found.append(f"bytes {begin * one.chunk} to {min(at * one.chunk, max(one.size, other.size)) - 1}")
    return found


def main(words: list[str]) -> int:
    """Run from the command line."""
    try:
        match words:
            case ["fsck", path]:
                said = fsck(Path(path))
            case ["digest", path]:
                print(digests(Path(path)).as_json())
                return 0
            case ["compare", one, other]:
                said = "\n".join(differences(digests(Path(one)), digests(Path(other))))
            case _:
                raise CannotLook(__doc__ or "")
    except CannotLook as error:
        sys.stderr.write(f"blocks: {error}\n")
        return 2
    sys.stdout.write(f"{said}\n" if said else "")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
