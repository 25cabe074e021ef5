"""Commands inside a file system tree, in mount and pid namespaces of their own.

Everything mounted for a command, and every process that it leaves behind, goes away with it.
"""

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "INITRD": "No",  # the lab boots from an initrd of its own
    "REMUS_LAB_TREE": "yes",  # without it, the scripts that customise a tree refuse to run: they would ruin a machine
}
ENTER = 'mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/tmp" && exec chroot "$0" "$@"'


def isolated(argv: Sequence[str], log: Path, timeout: float) -> None:
    """Run ARGV in namespaces of its own; its output goes to LOG, whose end is quoted on failure."""
    words = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--", *argv]
    environment = ENVIRONMENT | {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")}
    with log.open("ab") as output:
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError as error:
            raise LabError("unshare is not installed (package util-linux)") from error
        except subprocess.TimeoutExpired as error:
            raise LabError(f"no end after {timeout:.0f} s: {shlex.join(argv)}; log: {log}") from error
    if done.returncode != 0:
        said = log.read_text(errors="replace")[-3000:]
        raise LabError(f"failed with status {done.returncode}: {shlex.join(argv)}\n{said}")


def chroot(root: Path, argv: Sequence[str], log: Path, timeout: float = 1800) -> None:
    """Run ARGV inside ROOT."""
    isolated(["sh", "-c", ENTER, str(root), *argv], log, timeout)
