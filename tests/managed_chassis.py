"""labctl, where a host's QEMU is a process that sleeps, and no network is needed for it (tests/managed_host.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "roles" / "xen_lab" / "files"))

from lab import cli, process, qemu
from lab.hosts import Host
from lab.network import Network


def launch(host: Host, *_: Any, **__: Any) -> None:
    """Start the process, and record it as the host's QEMU."""
    host.folder.mkdir(parents=True, exist_ok=True)
    mark = qemu.marker(host._disk)
    words = [sys.executable, "-c", "import time; time.sleep(600)", mark]
    started = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    process.save(host._pid_file, process.record_of(started.pid, mark))


if __name__ == "__main__":
    Host.launch = launch  # type: ignore[method-assign]
    Network.exists = lambda _: True  # type: ignore[method-assign]
    sys.exit(cli.main())
