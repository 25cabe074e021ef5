"""What a large checkpoint needed is given back by a process whose memory is locked, as the agent's is."""

from __future__ import annotations

import subprocess
import sys

import pytest

STAGING = """
from remus_agent.adapters.xen.source import STAGING_KEPT, Staging
pages = STAGING_KEPT + 100
staging = Staging(pages)
staging.take(pages)[:, 0] = 7
give_back = staging.trim
kept, given = staging.pages[STAGING_KEPT - 1], staging.pages[STAGING_KEPT]
"""
STREAM = """
import socket
from remus_agent.adapters.xen.helper_stream import KEPT, HelperStream
stream = HelperStream(2 * KEPT, "web1")
with socket.socket(fileno=stream.helper_fd) as helper:
    while stream.partial < KEPT + 8192:
        helper.sendall(bytes([7]) * 4096)
        stream.receive_all()
    helper.detach()
give_back = stream.reset
kept, given = stream._view[KEPT - 4096 : KEPT], stream._view[KEPT : KEPT + 4096]
"""
LOCKED = """
import logging
from remus_agent.adapters import memory
logging.basicConfig(level=logging.WARNING)
memory.lock()
%s
give_back()
print(kept[0], given[0])
"""


@pytest.mark.parametrize("owner", [STAGING, STREAM], ids=["staging", "helper stream"])
def test_it_reads_as_zeros_afterwards_and_the_rest_is_kept(owner: str) -> None:
    run = subprocess.run([sys.executable, "-c", LOCKED % owner], capture_output=True, text=True, check=True)
    assert (run.stdout.split(), run.stderr) == (["7", "0"], "")
