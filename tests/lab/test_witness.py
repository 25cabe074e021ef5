"""With a witness nobody has to act: hosts and links fail, one copy runs on, and the pair is whole again afterwards.

Brings the witness up and installs it with its certificates, which takes minutes; afterwards the pair is without one, as before.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pair import agent
from pair.guest import copies, running_copies
from pair.hosts import GUEST, labctl
from pair.load import load, now
from pair.protection import wait_protected
from pair.wait import until
from witnessed import AUTOMATIC, heal, kept, runs_on

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(5400)]


def test_a_host_that_loses_power(recorded: None, tmp_path: Path) -> None:
    """beta takes over by itself; alpha comes back and becomes the backup by itself."""
    with load(tmp_path / "history.jsonl") as client:
        client.wait_for(60, 300)
        killed = now()
        labctl("kill", "alpha")
        runs_on("beta")
        kept(client, {"power loss": killed})
    assert agent.status("beta")["state"] == "solo"
    labctl("start", "alpha")
    wait_protected(host="beta")
    assert not [copy for copy in copies("alpha") if copy.runs]


def test_a_partition(recorded: None, tmp_path: Path) -> None:
    """Neither host hears the other, both reach the witness and the clients: one goes on, the other pauses its guest until it
    hears from the owner."""
    with load(tmp_path / "history.jsonl") as client:
        client.wait_for(60, 300)
        cut = now()
        labctl("cut", "replication")
        labctl("cut", "guests", "alpha", "--peer", "beta")
        runs_on("beta")
        client.wait_for(60, 600)
        heal()
        wait_protected(host="beta")
        kept(client, {"cut": cut})
    assert [(copy.host, copy.name) for copy in running_copies()] == [("beta", GUEST)]


def test_a_replication_link_that_is_cut_alone(recorded: None, tmp_path: Path) -> None:
    """beta hears alpha over the second path and stays a backup; alpha runs on alone, and protects again by itself."""
    with load(tmp_path / "history.jsonl") as client:
        client.wait_for(60, 300)
        cut = now()
        labctl("cut", "replication")
        until(
            "alpha runs alone",
            lambda: agent.status("alpha"),
            lambda seen: seen["state"] == "solo",
            timeout=2 * AUTOMATIC,
        )
        client.wait_for(60, 600)
        heal()
        wait_protected(host="alpha")
        kept(client, {"cut": cut})
    assert [(copy.host, copy.name) for copy in running_copies()] == [("alpha", GUEST)]


def test_a_witness_that_is_gone(recorded: None, tmp_path: Path) -> None:
    """Nobody notices."""
    with load(tmp_path / "history.jsonl") as client:
        client.wait_for(60, 300)
        before = agent.status("alpha")
        labctl("kill", "gamma")
        killed = now()
        try:
            client.wait_for(120, 600)
            after = agent.status("alpha")
            assert (after["state"], after["session"]) == ("protected", before["session"])
            assert after["committed_epoch"] > before["committed_epoch"]
        finally:
            labctl("start", "gamma")
        kept(client, {"witness gone": killed})
