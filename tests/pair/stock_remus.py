"""Stock `xl remus -Fnd` of the guest on alpha, and where its stream goes."""

from __future__ import annotations

from pair.hosts import GUEST, CommandFailed, on
from pair.wait import until

BANNER = "xl migration receiver ready, send binary domain data."
"""What xl waits for before it sends (Xen: tools/xl/xl_migrate.c)."""
COMMAND = "xl -vvv remus -F -n -d -i 100"
"""Stock without what Debian's libxl lacks: network buffering and a driver for disks."""
KILL = "pkill -KILL -x xl; pkill -KILL -x libxl-save-help"
"""Shell commands that end it as a power loss would. They may leave the guest suspended."""


def start(folder: str, take: str) -> None:
    """A fresh folder on alpha, and xl with a shell script in it that takes the stream from its standard input.

    Afterwards xl's words are in the folder's xl.log, and its exit status in `status` once it has ended."""
    on("alpha", f"rm -rf {folder} && mkdir -m 0700 {folder}")
    on("alpha", f"cat >{folder}/take && chmod 0700 {folder}/take", stdin=f"#!/bin/sh\n{take}\n")
    xl = f"{COMMAND} -s '' {GUEST} {folder}/take"
    on("alpha", f"(setsid {xl} >{folder}/xl.log 2>&1 </dev/null; echo $? >{folder}/status) >/dev/null 2>&1 &")


def wait_for_checkpoints(folder: str, count: int, timeout: float) -> None:
    """Until xl has taken so many. timeout: seconds. Raises CommandFailed at once when xl has ended."""

    def look() -> int:
        said = on("alpha", f"cd {folder} && echo $(grep -c 'Checkpointed save' xl.log) $(cat status 2>/dev/null)")
        taken, *ended = said.split()
        if ended:
            last = on("alpha", f"tail -n 20 {folder}/xl.log")
            raise CommandFailed(f"xl remus has ended with status {ended[0]} after {taken} checkpoints:\n{last}")
        return int(taken)

    until(f"{count} checkpoints", look, lambda taken: taken >= count, timeout=timeout, passing=(ValueError,))
