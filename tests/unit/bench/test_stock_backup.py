"""Stock's stream over a plain connection, with a program in xl's place."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import stock_backup
from bench.failover_figures import FAILED_OVER
from pair.stock_remus import BANNER
from pair.wait import until

BENCH = Path(stock_backup.__file__).parent
LISTEN = "0A"
XL = f"""#!/bin/sh
[ "$*" = "migrate-receive -r" ] || exit 9
echo "{BANNER}"
count=$(wc -c)
echo "migration target: {FAILED_OVER} 7, $count bytes" >&2
sleep 60 >/dev/null &  # the monitor, which keeps standard error open
exit 3
"""


def listens(port: int) -> bool:
    """Whether somebody does, without being the one connection that he takes."""
    sockets = [line.split()[1:4] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(state == LISTEN and local.endswith(f":{port:04X}") for local, _, state in sockets)


@contextlib.contextmanager
def stream(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]]:
    """The backup's side and the primary's, connected."""
    (tmp_path / "xl").write_text(XL)
    (tmp_path / "xl").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = [sys.executable, str(BENCH / "stock_backup.py"), "127.0.0.1", str(port)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment, start_new_session=True) as backup:
        try:
            until("it listens", lambda: listens(port), timeout=30, every=0.05)
            words = [sys.executable, str(BENCH / "stock_forward.py"), "127.0.0.1", str(port)]
            with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as forward:
                try:
                    assert forward.stdout is not None
                    assert forward.stdout.readline().decode() == f"{BANNER}\n"
                    yield backup, forward
                finally:
                    forward.kill()
        finally:
            os.killpg(backup.pid, signal.SIGKILL)


@pytest.mark.parametrize("by", ["signal", "end"])
def test_the_stream_goes_to_xl_until_it_is_broken_and_the_report_says_when(tmp_path, by) -> None:
    started = time.time()
    with stream(tmp_path) as (backup, forward):
        if by == "end":
            forward.stdin.write(bytes(3_000_000))
            forward.stdin.close()
        else:
            backup.send_signal(signal.SIGTERM)
        report = json.loads(backup.communicate(timeout=60)[0])
    assert (report["status"], report["by"]) == (3, by)
    ((said_at, said),) = report["lines"]
    assert said.endswith(f"{FAILED_OVER} 7, {3_000_000 if by == 'end' else 0} bytes")
    assert started < report["broken"] <= min(said_at, report["ended"])
    assert max(said_at, report["ended"]) < time.time()
