"""remus_drill_plan: what is broken where, and everything that stands against it."""

from __future__ import annotations

from typing import Any

import pytest

from remus_agent.adapters import systemd
from tests.modules.conftest import ROOT, RunModule, load
from tests.modules.test_protection import status

HOSTS = {
    "alpha": {"agent_name": "a", "replication": "192.0.2.1", "second": "198.51.100.1", "watchdog": None},
    "beta": {"agent_name": "b", "replication": "192.0.2.2", "second": "198.51.100.2", "watchdog": None},
}


def guest(owner: str = "alpha", **more: Any) -> dict[str, Any]:
    """As remus_topology says it of a guest that is well."""
    other = "beta" if owner == "alpha" else "alpha"
    statuses = {owner: status(peer=other), other: status("backup", "ready", owner)}
    return {
        "name": "web1",
        "owner": owner,
        "other": other,
        "protected": True,
        "problems": [],
        "verdict": "v",
        "status": statuses,
        **more,
    }


def plan(run_module: RunModule, fault: str = "agent_kill", **options: Any) -> dict[str, Any]:
    """With consent and a witness."""
    given: dict[str, Any] = {
        "guest": guest(),
        "hosts": HOSTS,
        "witnesses": ["gamma"],
        "consent": "web1",
        "fault": fault,
    }
    return run_module("remus_drill_plan", **given | options)


def places(result: dict[str, Any]) -> list[str]:
    """Hosts where something is broken."""
    return [site["host"] for site in result["sites"]]


@pytest.mark.parametrize(
    ("fault", "side", "where"),
    [
        ("agent_kill", None, ["beta"]),
        ("agent_kill", "backup", ["alpha"]),
        ("disk_stall", None, ["alpha"]),
        ("one_way_cut", None, ["alpha"]),
        ("link_cut", "primary", ["beta", "alpha"]),
        ("witness_loss", None, ["gamma"]),
        ("host_power_loss", None, ["beta"]),
    ],
)
def test_where_it_runs_decides_and_not_the_inventory(
    run_module: RunModule, fault: str, side: str | None, where: list[str]
) -> None:
    result = plan(run_module, fault, guest=guest("beta"), **({"side": side} if side else {}))
    assert (result["reasons"], places(result)) == ([], where)
    assert result["sites"][0]["witness"] is (fault == "witness_loss")


def test_a_link_is_cut_on_both_sides_and_each_hears_nothing_of_the_other(run_module: RunModule) -> None:
    sites = plan(run_module, "link_cut", second_path=True)["sites"]
    assert [site["links"] for site in sites] == [
        [{"local": "192.0.2.1", "peer": "192.0.2.2"}, {"local": "198.51.100.1", "peer": "198.51.100.2"}],
        [{"local": "192.0.2.2", "peer": "192.0.2.1"}, {"local": "198.51.100.2", "peer": "198.51.100.1"}],
    ]
    assert len(plan(run_module, "one_way_cut")["sites"][0]["links"]) == 1


def test_a_host_is_switched_off_by_the_other_one(run_module: RunModule) -> None:
    (site,) = plan(run_module, "host_power_loss", power="fence")["sites"]
    assert (site["host"], site["fence"]) == ("beta", "a")
    (site,) = plan(run_module, "host_power_loss")["sites"]
    assert (site["host"], site["fence"]) == ("alpha", "")


FENCING = {
    "alpha": HOSTS["alpha"] | {"fence_agent": "/usr/sbin/fence_ipmilan"},
    "beta": HOSTS["beta"] | {"fence_agent": "/usr/sbin/fence_redfish"},
}


@pytest.mark.parametrize(
    ("fault", "options", "hosts"),
    [
        ("agent_freeze", {}, ["alpha"]),
        ("host_freeze", {}, ["alpha"]),
        ("host_panic", {}, ["alpha"]),
        ("host_power_loss", {}, ["alpha"]),
        ("host_power_loss", {"power": "fence"}, ["alpha"]),
        ("host_panic", {"side": "backup"}, ["beta"]),
        ("link_cut", {"second_path": True}, ["alpha", "beta"]),
        ("one_way_cut", {"second_path": True}, ["alpha"]),
        ("one_way_cut", {"second_path": True, "side": "primary"}, ["beta"]),
        ("link_cut", {}, []),
        ("slow_link", {"second_path": True}, []),
        ("witness_loss", {}, []),
        ("agent_kill", {}, ["alpha"]),
        ("disk_stall", {}, ["beta"]),
        ("agent_freeze", {"witnesses": []}, []),
        ("agent_freeze", {"hosts": HOSTS}, []),
        ("agent_freeze", {"hosts": FENCING | {"beta": HOSTS["beta"]}}, []),
    ],
)
def test_a_host_that_an_agent_may_have_fenced_is_named(
    run_module: RunModule, fault: str, options: dict[str, Any], hosts: list[str]
) -> None:
    """Whoever takes its guests over, also those that nobody drills, switches it off."""
    result = plan(run_module, fault, **{"hosts": FENCING, **options})
    assert result["reasons"] == []
    assert [one["host"] for one in result["fenced"]] == hosts
    assert result["expected"].count("may be powered off") == len(hosts)


def test_consent_covers_a_host_that_is_powered_off(run_module: RunModule) -> None:
    words = "alpha may be powered off, with every guest that runs there: the agent of beta has it fenced by /usr/sbin/fence_red"
    result = plan(run_module, "agent_freeze", hosts=FENCING, consent="")
    (reason,) = result["reasons"]
    assert words in reason
    assert words in result["expected"]
    assert "Consent covers that, and beta switches alpha on again at the end." in result["expected"]
    fence = {"host": "alpha", "by": "beta", "fence": "a", "agent": "/usr/sbin/fence_redfish"}
    assert result["fenced"] == [fence]


ARMED = HOSTS | {"alpha": HOSTS["alpha"] | {"watchdog": {"armed": True, "seconds": 60}}}


@pytest.mark.parametrize(
    ("fault", "options", "words"),
    [
        ("agent_kill", {"consent": ""}, "nobody has agreed to that for web1"),
        ("agent_kill", {"consent": "web2"}, "nobody has agreed to that for web1"),
        ("agent_kill", {"guest": guest(protected=False)}, "web1 is not protected (v)"),
        ("agent_kill", {"guest": guest(owner="alpha") | {"owner": None}}, "nobody knows where web1 runs"),
        ("agent_kill", {"guest": guest(problems=["beta does not answer: no"])}, "beta does not answer: no"),
        ("agent_kill", {"guest": guest(status={"alpha": status()})}, "its copy of web1 is unknown"),
        ("agent_kill", {"seconds": 0}, "remus_drill_seconds is 0"),
        ("agent_freeze", {"seconds": 51}, "after 60 s systemd kills"),
        ("witness_loss", {"witnesses": []}, "there is no witness to lose"),
        ("host_panic", {"witnesses": []}, "without a witness nobody takes over"),
        ("agent_kill", {"second_path": True}, "remus_drill_second_path is about links"),
        (
            "link_cut",
            {"second_path": True, "hosts": HOSTS | {"beta": HOSTS["beta"] | {"second": ""}}},
            "beta has no remus_second_address",
        ),
        (
            "slow_link",
            {"hosts": HOSTS | {"beta": HOSTS["beta"] | {"replication": ""}}},
            "beta has no remus_replication",
        ),
        ("host_freeze", {"seconds": 20, "hosts": ARMED}, "Xen's watchdog would reset alpha after 60 s"),
    ],
)
def test_what_stands_against_it(run_module: RunModule, fault: str, options: dict[str, Any], words: str) -> None:
    reasons = plan(run_module, fault, **options)["reasons"]
    assert len(reasons) == 1, reasons
    assert words in reasons[0]
    assert "Next: " in reasons[0] or "does not answer" in reasons[0]


def test_systemd_bears_an_agent_for_as_long_as_a_drill_may_freeze_it(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = (ROOT / "remus_agent/units/remus-agent.service").read_text()
    patience = int(unit.split("\nWatchdogSec=")[1].split()[0])
    monkeypatch.setenv("WATCHDOG_USEC", str(patience * 1_000_000))
    interval = systemd.watchdog_seconds()
    assert interval is not None
    held = load("remus_drill_plan").FREEZE_SECONDS + load("remus_drill_fault").GRACE
    assert interval + held < patience


def test_a_backups_host_may_go_without_a_witness_and_nobody_is_asked_in_check_mode(run_module: RunModule) -> None:
    result = plan(run_module, "host_panic", side="backup", witnesses=[], consent="", demand_consent=False)
    assert (result["reasons"], result["reboots"]) == ([], True)


def test_each_fault_says_what_to_expect(run_module: RunModule) -> None:
    said = {
        fault: plan(run_module, fault, second_path=fault == "link_cut")["expected"]
        for fault in ("agent_kill", "slow_link", "witness_loss", "host_freeze", "link_cut", "disk_stall")
    }
    assert len(set(said.values())) == len(said)
    assert "protected again by itself" in plan(run_module, "link_cut", witnesses=[])["expected"]
