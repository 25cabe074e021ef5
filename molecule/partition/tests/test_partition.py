"""After links failed under load: only the host that was to run the guest let its frames out, and nothing acknowledged is lost."""

import json
import os
import subprocess
import sys

import pytest
from pair.guest import answers
from pair.hosts import PROJECT, REDIS, in_namespace
from pair.partitions import PARTITIONS
from pair.wait import until

pytestmark = pytest.mark.timeout(3600)

RESULTS = PROJECT / "results" / "partition"
NAMES = [name for name in os.environ.get("LAB_PARTITIONS", "").split(",") if name] or list(PARTITIONS)


@pytest.fixture(scope="module")
def outcomes():
    """What was read, by the name of the partition."""
    return {found["name"]: found for found in json.loads((RESULTS / "partitions.json").read_text())}


@pytest.fixture(scope="module")
def proof(outcomes):
    """The checker's report, against what the guest holds now."""
    words = [sys.executable, str(PROJECT / "tests" / "proof" / "checker.py"), str(RESULTS / "history.jsonl")]
    words += ["--guest", REDIS, "--report", str(RESULTS / "proof.json")]
    for name, found in outcomes.items():
        words += ["--mark", f"{name}={found['at']}"]
    done = subprocess.run(in_namespace(*words), capture_output=True, text=True, timeout=1800, check=False)
    (RESULTS / "proof.txt").write_text(done.stdout + done.stderr)
    report = json.loads((RESULTS / "proof.json").read_text())
    report["text"] = done.stdout
    report["exit_code"] = done.returncode
    return report


@pytest.mark.parametrize("name", NAMES)
def test_one_host_let_frames_out_while_links_were_cut(outcomes, name):
    assert outcomes[name]["speaking"] == [outcomes[name]["wanted"]], outcomes[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_right_host_was_in_charge(outcomes, name):
    found, plan = outcomes[name], PARTITIONS[name]
    assert (found["wanted"] != found["owner"]) == plan.moves
    if not plan.moves:
        assert found["states"][found["wanted"]] == ("solo" if plan.solo else "protected"), found


@pytest.mark.parametrize("name", NAMES)
def test_one_copy_runs_and_is_protected_after_the_heal(outcomes, name):
    assert outcomes[name]["running"] == [outcomes[name]["wanted"]], outcomes[name]
    assert outcomes[name]["protected"]


@pytest.mark.parametrize("name", [name for name in NAMES if not (PARTITIONS[name].moves or PARTITIONS[name].solo)])
def test_what_cuts_nothing_between_the_hosts_changes_nothing(outcomes, name):
    assert outcomes[name]["same_session"], outcomes[name]


def test_nothing_acknowledged_is_lost(proof):
    assert proof["lost"]["count"] == 0, proof["text"]


def test_nothing_happened_twice(proof):
    assert proof["duplicated"]["count"] == 0, proof["text"]


def test_the_connection_lived_on(proof):
    assert proof["connection"] == "kept", proof["text"]


def test_the_proof_is_kept(proof):
    assert (proof["verdict"], proof["exit_code"]) == ("kept", 0), proof["text"]


def test_the_guest_answers():
    until("the guest answers", answers, timeout=60)
