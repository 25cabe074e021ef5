"""The stream is Xen's own: what a primary writes, stock `xl migrate-receive -r` takes in and activates.

Takes the guest to alpha; afterwards it runs there again, unprotected.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_hosts import Host
from pair import agent, faults
from pair.guest import come_home, copies
from pair.hosts import ADDRESSES, GUEST, on
from pair.load import load
from pair.protection import SEED_TIMEOUT, ensure_unprotected, wait_protected
from pair.wait import until

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(3600)]

PORT = 7789
PYTHON = "/opt/remus/current/bin/python3"
HERE = Path(__file__).parent
FOLDER = "/run/remus-stock"
REPORT = "/run/stock-receiver.json"


@pytest.fixture
def receiver(lab: dict[str, Any]) -> Iterator[int]:
    """Its process on beta, in the place of beta's agent. The guest is on alpha, protected by nobody."""
    ensure_unprotected()
    on("beta", "systemctl stop remus-agent.service", timeout=180)
    Host("beta").put(FOLDER, {name: (HERE / name).read_bytes() for name in ("stock_receiver.py", "peer_socket.py")})
    pid = int(
        on(
            "beta",
            f"setsid {PYTHON} {FOLDER}/stock_receiver.py {ADDRESSES['beta']} {PORT}"
            f" >{REPORT} 2>{REPORT}.err </dev/null & echo $!",
        )
    )
    until("it listens", lambda: on("beta", "ss -Hltn"), lambda text: f":{PORT} " in text, timeout=120)
    yield pid
    on("beta", f"kill {pid} 2>/dev/null; rm -rf {FOLDER} {REPORT}*; systemctl start remus-agent.service")
    until("beta's agent answers", lambda: agent.answers("beta"), timeout=120)
    come_home()


def ended(pid: int) -> bool:
    """Whether a process of beta has ended."""
    return not faults.process_state("beta", pid)


def test_stock_xl_activates_what_the_primary_wrote(receiver: int, tmp_path: Path) -> None:
    agent.ask("alpha", "protect", timeout=SEED_TIMEOUT, domain=GUEST, peer="beta", wait=False)
    wait_protected()
    with load(tmp_path / "history.jsonl") as client:
        client.wait_for(60, 120)
        on(
            "alpha",
            "systemctl kill --signal=KILL remus-agent.service; systemctl stop remus-agent.service;"
            f" xl destroy {GUEST}; rm -f /var/lib/remus/guests/{GUEST}.json",
            timeout=180,
        )
        until("the receiver has ended", lambda: ended(receiver), timeout=400)
        report = json.loads(on("beta", f"cat {REPORT}"))
        assert report["status"] == 0, report["said"] + on("beta", f"cat {REPORT}.err")
        assert report["epochs"] > 10
        assert "Remus Failover for domain" in report["said"]
        assert [copy.runs for copy in copies("beta") if copy.name == GUEST] == [True]
        client.wait_for(60, 400)
        client.stop()
        proof = client.judge()
    assert proof["verdict"] == "kept", proof["reasons"]
