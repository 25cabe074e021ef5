"""After drill.yml killed the agent of the guest's host: its report, and the host as if nothing had been."""

import json
from xml.etree import ElementTree as ET

import pytest
from pair import agent
from pair.guest import answers, running_copies
from pair.hosts import GUEST, PROJECT, on
from pair.wait import until

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def folder():
    """Of the newest drill; its name begins with its time."""
    return max((PROJECT / "results" / "drills").iterdir())


@pytest.fixture(scope="module")
def report(folder):
    """What it says."""
    return json.loads((folder / "report.json").read_text())


def test_no_guarantee_was_violated(report):
    assert report["ok"], report
    verdicts = {one["name"]: one["verdict"] for one in report["guarantees"]}
    assert set(verdicts) == {"G1", "G2", "G3", "G4", "G5", "G6"}
    assert "violated" not in verdicts.values(), report["guarantees"]


def test_somebody_looked(report):
    assert report["answers"] > 10


def test_the_fault_is_undone(report):
    (undone,) = report["undone"]
    assert (undone["host"], undone["undone"]) in (("alpha", "now"), ("alpha", "timer")), undone
    on("alpha", "test -e /run/remus-drill/undone")
    assert on("alpha", "systemctl list-timers --no-legend remus-drill-undo.timer").strip() == ""


def test_the_report_is_for_people_and_for_programs(folder):
    page = (folder / "report.html").read_text()
    assert GUEST in page
    assert "<script" not in page
    suite = ET.parse(folder / "junit.xml").find("testsuite")  # noqa: S314 - our own
    assert suite.attrib["failures"] == "0"


def test_the_guest_is_protected_and_runs_once():
    until("the guest is protected", lambda: agent.status("alpha"), lambda now: now["state"] == "protected", timeout=300)
    assert [(copy.host, copy.name) for copy in running_copies()] == [("alpha", GUEST)]
    until("the guest answers", answers, timeout=60)
