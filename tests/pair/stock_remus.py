"""Stock `xl remus -Fnd` of the guest on alpha, and where its stream goes."""

from __future__ import annotations

from pair.hosts import GUEST, on
from pair.wait import until

BANNER = "xl migration receiver ready, send binary domain data."
"""What xl waits for before it sends (Xen: tools/xl/xl_migrate.c)."""
KILL = "pkill -KILL -x xl; pkill -KILL -x libxl-save-help"
"""Shell commands that end it as a power loss would. They may leave the guest suspended."""


def start(folder: str, take: str) -> None:
    """A fresh folder on alpha, and xl with a shell script in it that takes the stream from its standard input.

    Afterwards xl's words are in the folder's xl.log, and its exit status in `status` once it has ended."""
    on("alpha", f"rm -rf {folder} && mkdir -m 0700 {folder}")
    on("alpha", f"cat >{folder}/take && chmod 0700 {folder}/take", stdin=f"#!/bin/sh\n{take}\n")
    xl = f"xl -vvv remus -F -n -d -i 100 -s '' {GUEST} {folder}/take"
    on("alpha", f"(setsid {xl} >{folder}/xl.log 2>&1 </dev/null; echo $? >{folder}/status) >/dev/null 2>&1 &")


def wait_for_checkpoints(folder: str, count: int, timeout: float) -> None:
    """Until xl has taken so many. timeout: seconds."""
    until(
        f"{count} checkpoints",
        lambda: int(on("alpha", f"grep -c 'Checkpointed save' {folder}/xl.log || true").strip()),
        lambda taken: taken >= count,
        timeout=timeout,
    )
