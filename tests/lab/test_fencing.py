"""Fencing over IPMI: Debian's fence_ipmilan on a host switches the other host off by its BMC, before anything of it is activated.

With a witness and BMCs, which the fixture brings up beside the pair; that fails where ipmi_sim is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pair import agent
from pair.guest import copies
from pair.hosts import GUEST, HOSTS, lab_status, labctl, on, powered
from pair.load import load, now
from pair.protection import NOT_YET, wait_protected
from pair.wait import until
from pair.witness import witnessed
from witnessed import AUTOMATIC, BOOTED, kept, runs_on

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(5400)]

FENCED = 300.0
"""Seconds from a host that is silent to one that is off: to suspect, to ask the witness, and programs that start slowly."""


@pytest.fixture(scope="module")
def witness(lab: dict[str, Any]) -> Iterator[None]:
    """With fencing both ways. `recorded` uses it as it does the one without."""
    with witnessed(fenced=True):
        yield


def other_than(host: str) -> str:
    return next(each for each in HOSTS if each != host)


def events(host: str, since: int = 0) -> list[dict[str, Any]]:
    """Of the guest, as the host's agent tells them."""
    found: list[dict[str, Any]] = agent.ask(host, "events", domain=GUEST, since=since)["events"]
    return found


def switch_on(host: str, by: str) -> None:
    """Over IPMI, with what the agent of the other host has: its secrets stay there."""
    port = lab_status()["hosts"][host]["bmc_port"]
    assert port is not None, f"{host} has no BMC: labctl up --bmc"
    options = f"action=on\nip=10.0.2.2\nipport={port}\nlanplus=1\ncipher=3\npower_timeout=90\nipmitool_timeout=5\n"
    on(by, f"{{ cat; grep = /etc/remus/fence-{host}.secrets; }} | fence_ipmilan", stdin=options, timeout=FENCED)


@pytest.fixture
def on_again(recorded: None) -> Iterator[None]:
    """Both hosts are on afterwards, whatever became of the test."""
    yield
    for host in HOSTS:
        labctl("start", host)


@pytest.mark.parametrize("host", HOSTS)
def test_the_other_hosts_bmc_answers_and_switches_nothing(witness: None, host: str) -> None:
    other = other_than(host)
    pid = lab_status()["hosts"][other]["pid"]
    found = agent.ask(host, "fence-check", timeout=FENCED, host=other)
    assert found == {"host": other, "agent": "fence_ipmilan", "required": True, "power": "on", "unknown_options": []}
    assert lab_status()["hosts"][other]["pid"] == pid


def test_a_frozen_host_is_seen_off_before_its_guest_runs_on_the_other(on_again: None, tmp_path: Path) -> None:
    """It would go on where it stood; instead it is off, and when it is switched on again it becomes the backup."""
    before = max((event["id"] for event in events("beta")), default=0)
    with load(tmp_path / "history.jsonl") as client:
        client.wait_for(60, 300)
        frozen = now()
        labctl("freeze", "alpha")
        until("alpha is off", lambda: powered("alpha"), lambda is_on: not is_on, timeout=FENCED)
        runs_on("beta")
        kept(client, {"alpha frozen": frozen})
    told = events("beta", before)
    order = [event["event"] for event in told]
    assert order.index("ownership") < order.index("fenced") < order.index("activating") < order.index("active"), order
    fenced = told[order.index("fenced")]["detail"]
    assert (fenced["host"], fenced["agent"], fenced["confirmed"]) == ("alpha", "fence_ipmilan", True)
    assert not powered("alpha")

    switch_on("alpha", by="beta")
    assert powered("alpha")
    until("alpha's agent answers", lambda: agent.answers("alpha"), timeout=BOOTED, passing=NOT_YET)
    wait_protected(host="beta")
    assert not [copy for copy in copies("alpha") if copy.runs]
    until(
        "the backup is named", lambda: agent.status("beta"), lambda seen: not seen["reason"],
        timeout=AUTOMATIC, passing=NOT_YET,
    )  # fmt: skip
