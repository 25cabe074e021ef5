"""After switchovers under load: nothing acknowledged is lost, one copy runs, and a run to where it is changes nothing."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from pair.guest import answers, copies
from pair.hosts import GUEST, HOSTS, PROJECT
from pair.judged import judge
from pair.switchovers import owner
from pair.wait import until

pytestmark = pytest.mark.timeout(3600)

MOVES = int(os.environ.get("LAB_SWITCHOVERS") or 10)
RESULTS = PROJECT / "results" / "switchover"


@pytest.fixture(scope="module")
def seen():
    """What was read while it moved."""
    return json.loads((RESULTS / "moves.json").read_text())


@pytest.fixture(scope="module")
def proof(seen):
    """The checker's report, against what the guest holds now."""
    return judge(RESULTS, {f"move {number}": move["at"] for number, move in enumerate(seen["moves"], 1)})


def test_it_moved_there_and_back(seen):
    route = [(move["source"], move["target"]) for move in seen["moves"]]
    assert route == [("alpha", "beta"), ("beta", "alpha")] * (MOVES // 2)


def test_exactly_one_copy_ran_after_each_move(seen):
    assert [move["running"] for move in seen["moves"]] == [[move["target"]] for move in seen["moves"]]
    assert all(move["protected"] for move in seen["moves"])


def test_never_did_two_run(seen):
    assert seen["looks"] >= 2 * MOVES
    assert seen["two"] == []


def test_nothing_acknowledged_is_lost(proof):
    assert proof["lost"]["count"] == 0, proof["text"]


def test_nothing_happened_twice(proof):
    assert proof["duplicated"]["count"] == 0, proof["text"]


def test_the_connection_lived_on(proof):
    assert proof["connection"] == "kept", proof["text"]


def test_there_was_load_around_each_move(proof):
    for mark in proof["marks"].values():
        assert mark["acknowledged_before"] >= 50
        assert mark["sent_and_acknowledged_after"] >= 30


def test_the_proof_is_kept(proof):
    assert (proof["verdict"], proof["exit_code"]) == ("kept", 0), proof["text"]


def test_exactly_one_copy_runs_now():
    assert [(copy.host, copy.name) for host in HOSTS for copy in copies(host) if copy.runs] == [("alpha", GUEST)]


def test_the_guest_answers():
    until("the guest answers", answers, timeout=60)


def test_to_where_it_is_changes_nothing():
    before = [copy.domid for copy in copies("alpha")]
    inventory = Path(os.environ.get("REMUS_INVENTORY", PROJECT / "inventories" / "lab"))
    words = ["ansible-playbook", "-i", str(inventory), "playbooks/switchover.yml", "-e", f"remus_domain={GUEST}"]
    words += ["-e", f"remus_switchover_to={owner()}"]
    environment = {name: value for name, value in os.environ.items() if name != "ANSIBLE_CONFIG"}
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=1800, check=False, cwd=PROJECT, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    recap = done.stdout.rpartition("PLAY RECAP")[2]
    changed = dict(re.findall(r"^(\S+)\s*:.*\bchanged=(\d+)", recap, re.MULTILINE))
    assert set(changed.values()) == {"0"}, done.stdout
    assert [copy.domid for copy in copies("alpha")] == before
