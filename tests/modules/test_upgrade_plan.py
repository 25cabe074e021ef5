"""remus_upgrade_plan: who is first, what is refused, and that an upgrade that was stopped can be finished."""

from __future__ import annotations

from typing import Any

import pytest

from tests.modules.conftest import RunModule
from tests.modules.test_protection import status

OLD, NEW = "0.1.0-old", "0.2.0-new"


def host(
    *domains: dict[str, Any], current: str = OLD, runs: str | None = None, said: Any = None, **more: Any
) -> dict[str, Any]:
    """What is known of a host that has OLD, and shall get NEW."""
    return {
        "agent": {"agent": {"host": "a"}, "domains": list(domains)} if said is None else said,
        "current": current,
        "previous": None,
        "releases": {OLD: {"protocol": 2}},
        "running": {"remus-supervisor": runs or current, "remus-agent": runs or current},
        "release": NEW,
        "protocol": 2,
        **more,
    }


PROTECTED, COPY = status(peer="beta"), status("backup", "ready", "alpha")


def plan(run_module: RunModule, alpha: dict[str, Any], beta: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Of a pair."""
    return run_module("remus_upgrade_plan", hosts={"alpha": alpha, "beta": beta}, **options)


def order(result: dict[str, Any]) -> list[tuple[str, bool]]:
    """(host, is something to be done) in order."""
    return [(step["host"], step["needed"]) for step in result["steps"]]


def test_the_backup_comes_first(run_module: RunModule) -> None:
    result = plan(run_module, host(PROTECTED), host(COPY))
    assert (order(result), result["reasons"]) == ([("beta", True), ("alpha", True)], [])
    assert result["guests"] == [{"name": "web1", "hosts": ["alpha", "beta"]}]
    assert result["steps"][0] == {
        "host": "beta",
        "before": OLD,
        "release": NEW,
        "needed": True,
        "guests": ["web1"],
        "earlier": [],
    }
    assert result["steps"][1]["earlier"] == ["beta"]
    result = plan(run_module, host(status("backup", "ready", "beta")), host(status(peer="alpha")))
    assert order(result) == [("alpha", True), ("beta", True)]


def test_with_guests_both_ways_the_one_with_fewer_comes_first(run_module: RunModule) -> None:
    second = status(domain="web2", peer="beta")
    third = status(domain="web3", peer="alpha")
    alpha = host(PROTECTED, second, status("backup", "ready", "beta", domain="web3"))
    beta = host(COPY, status("backup", "ready", "alpha", domain="web2"), third)
    assert order(plan(run_module, alpha, beta)) == [("beta", True), ("alpha", True)]


def test_nothing_to_do(run_module: RunModule) -> None:
    result = plan(run_module, host(PROTECTED, current=NEW), host(COPY, current=NEW))
    assert order(result) == [("beta", False), ("alpha", False)]


def test_a_link_without_a_restart_is_no_upgrade(run_module: RunModule) -> None:
    """It was stopped between the two."""
    both = {OLD: {"protocol": 2}, NEW: {"protocol": 2}}
    result = plan(
        run_module, host(PROTECTED, current=NEW), host(COPY, current=NEW, runs=OLD, releases=both), back=False
    )
    assert order(result) == [("beta", True), ("alpha", False)]
    assert result["steps"][0]["before"] == OLD


def test_a_configuration_that_nobody_has_read_is_an_upgrade_that_was_stopped(run_module: RunModule) -> None:
    """It had written the new one, or in undoing that the old one."""
    said = {"agent": {"host": "a"}, "domains": [COPY], "unread": ["/etc/remus/agent.toml"]}
    result = plan(run_module, host(PROTECTED, current=NEW), host(current=NEW, said=said))
    assert order(result) == [("beta", True), ("alpha", False)]
    said["unread"] = []
    result = plan(run_module, host(PROTECTED, current=NEW), host(current=NEW, said=said))
    assert order(result) == [("beta", False), ("alpha", False)]


def test_back_is_to_what_was_before(run_module: RunModule) -> None:
    both = {OLD: {"protocol": 2}, NEW: {"protocol": 2}}
    upgraded = {"current": NEW, "previous": OLD, "releases": both}
    result = plan(run_module, host(PROTECTED, **upgraded), host(COPY, **upgraded), back=True)
    assert [(step["host"], step["release"], step["needed"]) for step in result["steps"]] == [
        ("beta", OLD, True),
        ("alpha", OLD, True),
    ]
    again = {"current": OLD, "previous": OLD, "releases": both}
    result = plan(run_module, host(PROTECTED, **upgraded), host(COPY, **again), back=True)
    assert order(result) == [("beta", False), ("alpha", True)]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"previous": None}, "alpha has no previous release; it has 0.1.0-old"),
        ({"previous": "0.0.1-gone"}, "the previous release of alpha, 0.0.1-gone, is not installed any more"),
    ],
)
def test_nowhere_to_go_back_to(run_module: RunModule, more: dict[str, Any], words: str) -> None:
    reasons = plan(run_module, host(PROTECTED, **more), host(COPY, previous=OLD), back=True)["reasons"]
    assert len(reasons) == 1
    assert words in reasons[0]


def test_back_from_an_agent_that_does_not_start(run_module: RunModule) -> None:
    upgraded = {"current": NEW, "previous": OLD, "releases": {OLD: {"protocol": 2}, NEW: {"protocol": 2}}}
    dead = host(**upgraded, said={"msg": "No agent answers"}, runs=None) | {"running": {"remus-agent": None}}
    result = plan(run_module, host(status(state="silent"), previous=OLD), dead, back=True)
    assert (order(result), result["reasons"]) == ([("beta", True), ("alpha", False)], [])
    (reason,) = plan(run_module, host(), dead)["reasons"]
    assert "beta does not answer: No agent answers" in reason


WAITS = {"name": "web1", "peer": "alpha", "working_name": "web1--incoming-01234567", "word": "alpha is off (pdu: off)"}


def test_back_is_refused_where_something_waits_to_run_that_the_agent_does_not_say(run_module: RunModule) -> None:
    """The release from before may not be able to read the note, and destroys what was built."""
    upgraded = {"current": NEW, "previous": OLD, "releases": {OLD: {"protocol": 2}, NEW: {"protocol": 2}}}
    dead = host(**upgraded, said={"msg": "No agent answers"}, notes={"starting": [WAITS], "unreadable": []})
    (reason,) = plan(run_module, host(**upgraded), dead, back=True)["reasons"]
    assert "web1 is built on beta and about to run there by an operator's word, that alpha is off (pdu: off)" in reason
    assert "paused, as web1 or web1--incoming-01234567" in reason
    assert "docs/runbook.md, 'A guest is `starting`'" in reason
    by_witness = dead | {"notes": {"starting": [WAITS | {"word": None}], "unreadable": []}}
    (reason,) = plan(run_module, host(**upgraded), by_witness, back=True)["reasons"]
    assert "by the witness's word, or its old host's" in reason
    answers = host(status(state="starting"), **upgraded, notes={"starting": [WAITS], "unreadable": []})
    (reason,) = plan(run_module, answers, host(**upgraded), back=True)["reasons"]
    assert "web1 is changing its state" in reason, "the agent says it, so once is enough"


def test_back_is_refused_where_nobody_knows_what_waits(run_module: RunModule) -> None:
    upgraded = {"current": NEW, "previous": OLD, "releases": {OLD: {"protocol": 2}, NEW: {"protocol": 2}}}
    damaged = {"starting": [], "unreadable": [{"path": "/var/lib/remus/guests/web1.json", "problem": "no JSON"}]}
    failed = {"failed": False, "msg": "no Python"}
    reasons = plan(run_module, host(**upgraded, notes=damaged), host(**upgraded, notes=failed), back=True)["reasons"]
    assert "/var/lib/remus/guests/web1.json on alpha cannot be read (no JSON)" in reasons[0]
    assert "what waits on beta to run is not known: no Python" in reasons[1]


@pytest.mark.parametrize("state", ["connecting", "seeding", "silent", "solo"])
def test_an_interrupted_protection_is_not_interrupted_again_unless_told(run_module: RunModule, state: str) -> None:
    alpha, beta = host(status(state=state)), host(status("backup", "orphaned", "alpha"))
    (reason,) = plan(run_module, alpha, beta)["reasons"]
    assert f"web1 is not protected (alpha says {state}, beta says orphaned)" in reason
    assert "remus_upgrade_unprotected=true" in reason
    assert plan(run_module, alpha, beta, accept_unprotected=True)["reasons"] == []
    upgraded = {"previous": OLD, "releases": {OLD: {"protocol": 2}}}
    assert plan(run_module, alpha | upgraded, beta | upgraded, back=True)["reasons"] == []


@pytest.mark.parametrize(
    "state",
    [
        "switching",
        "handed-over",
        "in-doubt",
        "standing-down",
        "stood-down",
        "starting",
        "stopping",
        "activating",
        "news",
    ],
)
def test_a_guest_on_its_way_is_left_alone_whatever_is_accepted(run_module: RunModule, state: str) -> None:
    alpha = host(status(state=state), previous=OLD)
    for options in ({}, {"accept_unprotected": True}, {"back": True}):
        (reason,) = plan(run_module, alpha, host(previous=OLD), **options)["reasons"]
        assert "web1 is changing its state or its host" in reason


def test_two_owners_are_refused(run_module: RunModule) -> None:
    (reason,) = plan(run_module, host(PROTECTED), host(status(peer="alpha")), accept_unprotected=True)["reasons"]
    assert "web1 is claimed by alpha and beta at once" in reason


@pytest.mark.parametrize("state", ["unprotected", "failed", "discarded"])
def test_guests_that_nobody_protects_are_no_hindrance(run_module: RunModule, state: str) -> None:
    result = plan(run_module, host(status("none", state)), host(status("primary", "active", "alpha")))
    assert (result["reasons"], result["guests"]) == ([], [])


def test_agents_that_could_not_talk_are_refused_while_they_protect_something(run_module: RunModule) -> None:
    alpha, beta = host(PROTECTED, protocol=3), host(COPY, protocol=3)
    reasons = plan(run_module, alpha, beta)["reasons"]
    assert "beta with 0.2.0-new would speak protocol 3 and alpha protocol 2, so web1 could not stay" in reasons[0]
    assert plan(run_module, host(protocol=3), host(protocol=3))["reasons"] == []


def test_one_that_does_not_say_what_it_speaks_counts_as_another(run_module: RunModule) -> None:
    (first, _) = plan(run_module, host(PROTECTED, protocol=None), host(COPY, protocol=None))["reasons"]
    assert "protocol unknown and alpha protocol 2" in first


def test_a_stopped_upgrade_to_another_protocol_can_be_finished(run_module: RunModule) -> None:
    """What they speak at the end decides, not that they cannot talk now."""
    releases = {OLD: {"protocol": 2}, NEW: {"protocol": 3}}
    alpha = host(status(state="silent"), current=NEW, releases=releases, protocol=3)
    beta = host(status("backup", "orphaned", "alpha"), releases=releases, protocol=3)
    result = plan(run_module, alpha, beta, accept_unprotected=True)
    assert (order(result), result["reasons"]) == ([("beta", True), ("alpha", False)], [])


def test_everything_that_stands_against_it_is_named_at_once(run_module: RunModule) -> None:
    alpha = host(status(state="seeding"), status(domain="web2", state="switching"))
    beta = host(current=None, said={"msg": "no route to host"}, release=None)
    reasons = plan(run_module, alpha, beta)["reasons"]
    assert [words in " ".join(reasons) for words in ("beta does not answer", "web1 is not", "web2 is changing")] == [
        True
    ] * 3
    (reason,) = plan(run_module, host(), host(current=None))["reasons"]
    assert "beta has no release of the agent. Next: playbooks/site.yml" in reason
