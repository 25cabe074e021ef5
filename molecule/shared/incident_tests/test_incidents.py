"""After what the scenario let happen: only the host that was to run the guest spoke for it, and nothing acknowledged is lost."""

import json
import os

import pytest
from pair.guest import answers
from pair.hosts import PROJECT
from pair.incidents import INCIDENTS
from pair.judged import judge
from pair.wait import until

pytestmark = pytest.mark.timeout(3600)

SCENARIO = os.environ["MOLECULE_SCENARIO_NAME"]
PLANS = INCIDENTS[SCENARIO]
RESULTS = PROJECT / "results" / SCENARIO
NAMES = [name for name in os.environ.get("LAB_INCIDENTS", "").split(",") if name] or list(PLANS)


@pytest.fixture(scope="module")
def outcomes():
    """What was read, by the name of the incident."""
    return {found["name"]: found for found in json.loads((RESULTS / "incidents.json").read_text())}


@pytest.fixture(scope="module")
def proof(outcomes):
    """The checker's report, against what the guest holds now."""
    return judge(RESULTS, {name: found["at"] for name, found in outcomes.items()})


@pytest.mark.parametrize("name", NAMES)
def test_one_host_let_frames_out_meanwhile(outcomes, name):
    assert outcomes[name]["speaking"] == [outcomes[name]["wanted"]], outcomes[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_other_host_never_let_out_what_it_held(outcomes, name):
    """A host that was frozen may still have had frames of epochs that its backup knows; the proof covers them."""
    assert outcomes[name]["late"] == 0 or name == "frozen", outcomes[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_right_host_was_in_charge(outcomes, name):
    found, plan = outcomes[name], PLANS[name]
    assert (found["wanted"] != found["owner"]) == plan.moves
    if not plan.moves:
        assert found["state"] == ("solo" if plan.solo else "protected"), found
        assert found["same_session"] != plan.solo, found


@pytest.mark.parametrize("name", NAMES)
def test_one_copy_runs_and_is_protected_afterwards(outcomes, name):
    assert outcomes[name]["running"] == [outcomes[name]["wanted"]], outcomes[name]
    assert outcomes[name]["protected"]


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
