"""How long a thread of ours runs before it lets another one: Python's own 5 ms are too long for those that a guest waits for."""

from __future__ import annotations

import sys
from typing import Final

SECONDS: Final = 0.0005
"""The agent's thread that has a guest down makes a dozen system calls meanwhile, and after each of them it waits for a busy one
to let it run; so does a tap's thread that serves the kernel, for one that packs a piece."""


def shorten() -> None:
    """For all threads of this process."""
    sys.setswitchinterval(SECONDS)
