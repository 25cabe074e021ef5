"""A guest that accepts a request to suspend and freezes only after its primary has given up on it: it is resumed by whoever looks
after it then, and serves on.

Takes the guest to alpha, protected to beta, and leaves it there.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_hosts import Host
from pair import faults
from pair.guest import copies
from pair.hosts import GUEST, on
from pair.load import Load, load
from pair.protection import NOT_YET, ensure_protected, wait_protected
from pair.wait import SLOWEST, until

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(3600)]

SUPERVISOR = "remus-supervisor.service"
LEFT = "has hung up"
"""Said by the supervisor: the source that had asked has given up, waited a moment longer, and ended."""
NEXT = "reconnecting -> reseeding"
REVIVED = "resumed; it was left suspended"


def logged(unit: str, since: str, words: str) -> bool:
    """Whether alpha's log of a unit has these words since a moment (seconds of its clock)."""
    return words in on("alpha", f"journalctl --no-pager --output=cat --unit={unit} --since=@{since}")


@pytest.fixture
def client(lab: dict[str, Any], tmp_path: Path) -> Iterator[Load]:
    ensure_protected()
    with load(tmp_path / "history.jsonl") as running:
        yield running


@pytest.fixture
def held(client: Load) -> Iterator[subprocess.Popen[bytes]]:
    """The guest held right when it had accepted a request of its protection, until the input of this ends."""
    client.wait_for(60, 300)
    folder = "/run/remus-test-late-freeze"
    host = Host("alpha")
    host.put(folder, {"late_freeze.py": (Path(__file__).parent / "late_freeze.py").read_bytes()})
    (guest,) = (copy for copy in copies("alpha") if copy.name == GUEST)
    holder = host.start(f"python3 {folder}/late_freeze.py {guest.domid}")
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        yield holder
    finally:
        let_go_on(holder)
        host.run(f"rm -rf {folder}")


def let_go_on(holder: subprocess.Popen[bytes]) -> None:
    if holder.stdin is not None and not holder.stdin.closed:
        holder.stdin.close()
    assert holder.wait(60 * SLOWEST) == 0


def says(unit: str, words: str, since: str) -> None:
    until(f"alpha's {unit} says: {words}", lambda: logged(unit, since, words), timeout=120, passing=NOT_YET)


def serves_again(client: Load) -> None:
    """It answers, is protected, and nothing that was acknowledged is lost."""
    client.wait_for(60, 300)
    wait_protected()
    client.stop()
    proof = client.judge()
    assert proof["verdict"] == "kept", proof["reasons"]


def test_its_next_session_goes_on_with_it(client: Load, held: subprocess.Popen[bytes]) -> None:
    """It is resumed while it is seeded, or goes down for the first checkpoint, which has asked again by then."""
    since = on("alpha", "date +%s").strip()
    says(SUPERVISOR, LEFT, since)
    says(faults.UNIT, NEXT, since)
    let_go_on(held)
    serves_again(client)


def test_the_supervisor_resumes_it_where_its_agent_has_ended(client: Load, held: subprocess.Popen[bytes]) -> None:
    since = on("alpha", "date +%s").strip()
    says(SUPERVISOR, LEFT, since)
    on("alpha", f"systemctl stop {faults.UNIT}", timeout=180)
    try:
        let_go_on(held)
        says(SUPERVISOR, REVIVED, since)
        (guest,) = (copy for copy in copies("alpha") if copy.name == GUEST)
        assert guest.runs
    finally:
        on("alpha", f"systemctl start {faults.UNIT}", timeout=180)
    serves_again(client)
