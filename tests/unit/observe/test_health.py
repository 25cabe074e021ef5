"""Yes or no, for every state."""

from __future__ import annotations

from typing import get_args

import pytest
from host_views import guest, host

from remus_agent.observe import health
from remus_agent.observe.status import BackupState, PrimaryState, State
from remus_agent.observe.view import CertificateView, WatchdogView, WitnessView

OWNED = {"connecting", "seeding", "protected", "silent", "solo", "stopping", "switching", "active"}


def test_every_state_is_judged() -> None:
    assert set(health.OF_STATE) == set(get_args(State))


def test_who_owns_a_guest() -> None:
    assert {state for state, marks in health.OF_STATE.items() if marks.owned} == OWNED


def test_only_an_owner_protects() -> None:
    assert [state for state, marks in health.OF_STATE.items() if marks.protected] == ["protected"]


def test_a_copy_owns_nothing() -> None:
    copies = set(get_args(BackupState)) - {"active"}
    assert not any(health.OF_STATE[state].owned for state in copies)
    assert not copies & set(get_args(PrimaryState))


@pytest.mark.parametrize("state", sorted(get_args(State)))
def test_where_it_has_no_role_the_answer_is_no(state: State) -> None:
    view = host(guest(state, "none"))
    for judge in (health.primary, health.protected, health.ready):
        assert not judge(view, "web1").ok


@pytest.mark.parametrize(
    ("state", "primary", "protected", "ready"),
    [
        ("protected", True, True, True),
        ("solo", True, False, True),
        ("silent", True, False, False),
        ("seeding", True, False, False),
        ("stood-down", False, False, False),
        ("in-doubt", False, False, False),
    ],
)
def test_a_primary(state: State, primary: bool, protected: bool, ready: bool) -> None:
    view = host(guest(state))
    for name in ("web1", None):
        answers = [judge(view, name).ok for judge in (health.primary, health.protected, health.ready)]
        assert answers == [primary, protected, ready]


@pytest.mark.parametrize(
    ("state", "ready"), [("ready", True), ("orphaned", True), ("receiving", False), ("stale", False)]
)
def test_a_copy(state: State, ready: bool) -> None:
    view = host(guest(state, "backup"))
    assert not health.primary(view, "web1").ok
    assert not health.protected(view, "web1").ok
    assert health.ready(view, "web1").ok is ready


def test_without_a_name_all_have_to_hold() -> None:
    mixed = host(guest(), guest("ready", "backup", "db1"), guest("unprotected", "none", "old"))
    assert not health.primary(mixed, None).ok, "db1 runs on the other host"
    assert health.protected(mixed, None).ok, "web1 is the only one that this host is the primary of"
    assert health.ready(mixed, None).ok
    assert [found.domain for found in health.primary(mixed, None).guests] == ["web1", "db1"]
    worse = host(*mixed.guests, guest("silent", name="sql1"))
    assert not health.protected(worse, None).ok
    assert not health.ready(worse, None).ok


def test_a_host_without_guests() -> None:
    empty = host()
    assert not health.primary(empty, None).ok
    assert not health.protected(empty, None).ok
    assert health.ready(empty, None).ok


def test_a_guest_that_is_not_known() -> None:
    for judge in (health.primary, health.protected, health.ready):
        found = judge(host(guest()), "web2")
        assert not found.ok
        assert found.problems == ("this host has nothing to do with the guest",)


def test_what_stands_against_the_host_stands_against_its_readiness_alone() -> None:
    view = host(
        guest(),
        supervisor=False,
        certificate=CertificateView(None, usable=False),
        witness=WitnessView(reachable=False),
        watchdog=WatchdogView(armed=False, problem=True),
    )
    found = health.ready(view, "web1")
    assert not found.ok
    assert len(found.problems) == 4
    assert not health.ready(host(supervisor=False), None).ok
    assert health.primary(view, "web1").ok
    assert health.protected(view, "web1").ok


def test_a_witness_that_was_not_asked_yet_is_no_problem() -> None:
    assert health.ready(host(guest(), witness=WitnessView()), None).ok
