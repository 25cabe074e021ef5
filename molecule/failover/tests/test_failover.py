"""After the death of alpha and failover.yml: nothing acknowledged is lost, one copy runs, and a second run changes nothing."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from pair import agent
from pair.guest import answers, copies
from pair.hosts import GUEST, PROJECT, powered
from pair.judged import judge
from pair.wait import until

pytestmark = pytest.mark.timeout(3600)

RESULTS = PROJECT / "results" / "failover"


@pytest.fixture(scope="module")
def proof():
    """The checker's report, against what the guest holds now."""
    return judge(RESULTS, {"power loss": (RESULTS / "killed").read_text().strip()})


def test_nothing_acknowledged_is_lost(proof):
    assert proof["lost"]["count"] == 0, proof["text"]


def test_nothing_happened_twice(proof):
    assert proof["duplicated"]["count"] == 0, proof["text"]


def test_the_connection_lived_on(proof):
    assert proof["connection"] == "kept", proof["text"]


def test_there_was_load_before_and_after(proof):
    mark = proof["marks"]["power loss"]
    assert mark["acknowledged_before"] >= 60
    assert mark["sent_and_acknowledged_after"] >= 50


def test_the_proof_is_kept(proof):
    assert (proof["verdict"], proof["exit_code"]) == ("kept", 0), proof["text"]


def test_exactly_one_copy_runs(proof):
    assert not powered("alpha")
    found = copies("beta")
    assert [(copy.name, copy.runs) for copy in found] == [(GUEST, True)]


def test_the_agent_knows_that_it_took_over():
    """Earlier moves of the guest have counted too, so the generation is one more than that of before."""
    state, before = agent.status("beta"), int((RESULTS / "generation").read_text())
    assert (state["role"], state["state"], state["generation"]) == ("primary", "active", before + 1), state


def test_the_guest_answers():
    until("the guest answers", answers, timeout=60)


def test_a_second_failover_changes_nothing():
    before = [copy.domid for copy in copies("beta")]
    inventory = Path(os.environ.get("REMUS_INVENTORY", PROJECT / "inventories" / "lab"))
    words = ["ansible-playbook", "-i", str(inventory), "failover.yml", "-e", f"remus_domain={GUEST}"]
    environment = {name: value for name, value in os.environ.items() if name != "ANSIBLE_CONFIG"}
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=1800, check=False, cwd=PROJECT, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    recap = done.stdout.rpartition("PLAY RECAP")[2]
    changed = dict(re.findall(r"^(\S+)\s*:.*\bchanged=(\d+)", recap, re.MULTILINE))
    assert changed
    assert set(changed.values()) == {"0"}, done.stdout
    assert [copy.domid for copy in copies("beta")] == before
