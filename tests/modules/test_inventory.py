"""remus_inventory: every mistake has its reason with a next step, and a good inventory has none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from remus_agent.errors import ConfigError
from remus_agent.group_config import parse
from tests.modules.conftest import ROOT, RunModule

GOOD: dict[str, Any] = {
    "ansible_version": "2.19.4",
    "hosts": {
        "alpha": {
            "ansible_host": "198.51.100.1",
            "remus_replication_address": "192.0.2.1",
            "remus_second_address": "198.51.100.1",
            "remus_monitoring_address": "198.51.100.1",
            "remus_pki_enabled": True,
        },
        "beta": {
            "ansible_host": "198.51.100.2",
            "remus_replication_address": "192.0.2.2",
            "remus_second_address": "198.51.100.2",
            "remus_monitoring_address": "198.51.100.2",
            "remus_pki_enabled": True,
        },
    },
    "witnesses": {"gamma": {"ansible_host": "198.51.100.3", "remus_witness_address": "198.51.100.3"}},
    "guests": [
        {
            "name": "web1",
            "hosts": ["alpha", "beta"],
            "interval_ms": 0,
            "output_limit_bytes": 1048576,
            "disks": [
                {"vdev": "xvda", "device": "/dev/a", "journal_bytes": 8192, "per_host": {"beta": {"device": "/dev/b"}}}
            ],
        }
    ],
}
Change = Callable[[dict[str, Any]], Any]


def reasons(run_module: RunModule, change: Change | None = None) -> list[str]:
    """What is said against the good inventory after a change of it."""
    inventory = copy.deepcopy(GOOD)
    if change:
        change(inventory)
    result = run_module("remus_inventory", **inventory)
    assert result["changed"] is False
    assert all("Next: " in reason and not reason.endswith(".") for reason in result["reasons"])
    return list(result["reasons"])


def test_a_good_inventory_has_no_reasons(run_module: RunModule) -> None:
    assert reasons(run_module) == []


MEMBERS = [{"name": "app1"}, {"name": "db1", "disks": [{"vdev": "xvda", "device": "/dev/c"}]}]


def group(members: Any, **more: Any) -> Change:
    """A consistency group beside the guest."""
    entry = {"name": "shop", "hosts": ["alpha", "beta"], "members": members, **more}
    return lambda inventory: inventory["guests"].append(entry)


def test_a_group_has_no_reasons(run_module: RunModule) -> None:
    def change(inventory: dict[str, Any]) -> None:
        group(MEMBERS)(inventory)
        inventory["domain"] = "shop"

    assert reasons(run_module, change) == []
    assert reasons(run_module, lambda inventory: inventory.update(guests=[], witnesses={})) == []


def host(name: str, **facts: Any) -> Change:
    """Other variables of a host; None takes one away."""

    def change(inventory: dict[str, Any]) -> None:
        for key, value in facts.items():
            inventory["hosts"][name][key] = value
            if value is None:
                del inventory["hosts"][name][key]

    return change


def guest(**values: Any) -> Change:
    """Other values of the guest."""
    return lambda inventory: inventory["guests"][0].update(values)


def disk(**values: Any) -> Change:
    """Other values of its disk."""
    return lambda inventory: inventory["guests"][0]["disks"][0].update(values)


def witness(**facts: Any) -> Change:
    """Other variables of the witness."""
    return lambda inventory: inventory["witnesses"]["gamma"].update(facts)


def guests(*entries: Any) -> Change:
    """Other guests."""
    return lambda inventory: inventory.update(guests=list(entries))


WRONG: list[tuple[str, Change, str]] = [
    ("ansible", lambda inventory: inventory.update(ansible_version="2.18.7"), "ansible-core 2.18.7 is too old"),
    ("one host", lambda inventory: inventory["hosts"].pop("beta"), "fewer than two hosts"),
    ("no address", host("alpha", remus_replication_address=None), "alpha has no remus_replication_address"),
    (
        "a name",
        host("alpha", remus_replication_address="alpha.example"),
        "'alpha.example', not the address of one host",
    ),
    ("all", host("alpha", remus_replication_address="0.0.0.0"), "'0.0.0.0', not the address of one host"),  # noqa: S104
    (
        "same address",
        host("beta", remus_replication_address="192.0.2.1"),
        "alpha and beta have the same remus_replication_address 192.0.2.1",
    ),
    (
        "same address of the role",
        host("beta", remus_agent_replication_address="192.0.2.1"),
        "alpha and beta have the same remus_replication_address",
    ),
    ("same second", host("beta", remus_second_address="198.51.100.1"), "have the same remus_second_address"),
    (
        "same monitoring",
        host("beta", remus_monitoring_address="198.51.100.1"),
        "have the same remus_monitoring_address",
    ),
    ("second", host("alpha", remus_second_address="192.0.2.1"), "both paths would be lost together"),
    ("second name", host("alpha", remus_second_address="x"), "remus_second_address of alpha is 'x'"),
    (
        "same machine",
        host("beta", ansible_host="198.51.100.1"),
        "alpha and beta are the same machine, 198.51.100.1 port 22",
    ),
    ("same agent", host("beta", remus_agent_name="alpha"), "alpha and beta have the same remus_agent_name alpha"),
    ("tls", host("beta", remus_pki_enabled=False), "alpha will use TLS and beta will not"),
    ("no certificates", host("beta", remus_agent_tls="false"), "the witness accepts certificates only, and beta will"),
    ("itself", host("alpha", remus_agent_peers={"alpha": "192.0.2.1:7789"}), "names the host itself"),
    ("stranger", host("alpha", remus_agent_peers={"delta": "192.0.2.4:7789"}), "names delta, which is no agent"),
    (
        "not its peer",
        host("alpha", remus_agent_peers={"delta": "192.0.2.4:7789"}),
        "remus_agent_peers of alpha does not name beta, which is the other host of guest web1",
    ),
    (
        "elsewhere",
        host("alpha", remus_agent_peers={"beta": "192.0.2.9:7789"}),
        "has beta at 192.0.2.9:7789, but its agent listens at 192.0.2.2 port 7789",
    ),
    ("peers", host("alpha", remus_agent_peers=["beta"]), "remus_agent_peers of alpha is not a dictionary"),
    ("two witnesses", lambda inventory: inventory["witnesses"].update(delta={}), "it must have one or three"),
    ("no witness address", witness(remus_witness_address=""), "witness gamma has no remus_witness_address"),
    ("witness name", witness(remus_witness_address="gamma"), "remus_witness_address of gamma is 'gamma'"),
    ("witness on a host", witness(remus_witness_address="192.0.2.2"), "witness gamma is one of the hosts"),
    ("witness beside monitoring", witness(remus_witness_address="198.51.100.2"), "witness gamma is one of the hosts"),
    ("witness by ssh", witness(ansible_host="198.51.100.1"), "witness gamma is one of the hosts"),
    ("witness by name", lambda inventory: inventory["witnesses"].update(alpha={}), "witness alpha is one of the hosts"),
    (
        "three hosts",
        guest(hosts=["alpha", "beta", "delta"]),
        "it has alpha, beta, delta: 3 of them, and one keeps its copy",
    ),
    ("three, one unknown", guest(hosts=["alpha", "beta", "delta"]), "delta unknown to that group"),
    ("one host twice", guest(hosts=["alpha", "alpha"]), "it has alpha, alpha: alpha twice"),
    ("one host of two", guest(hosts=["alpha"]), "it has alpha. Next: name both"),
    ("hosts", guest(hosts="alpha"), "hosts of guest web1 is not a list"),
    ("unknown host", guest(hosts=["alpha", "delta"]), "it has alpha, delta: delta unknown to that group"),
    ("no name", guest(name=""), "entry 1 of remus_guests has no name"),
    ("bad name", guest(name="../web1"), "named '../web1', which no agent accepts"),
    ("typing error", guest(disk=[]), "guest web1 has disk, which nobody reads"),
    ("interval", guest(interval_ms="soon"), "interval_ms of guest web1 is 'soon'"),
    ("limit", guest(output_limit_bytes=0), "output_limit_bytes of guest web1 is '0'"),
    ("disks", guest(disks={}), "disks of guest web1 is not a list"),
    ("disk", guest(disks=["xvda"]), "disk 1 of guest web1 is not a dictionary"),
    ("no device", disk(device=""), "disk 1 of guest web1 has no vdev or no device"),
    ("vdev twice", guest(disks=[{"vdev": "xvda", "device": "/a"}] * 2), "guest web1 has a vdev twice"),
    ("disk's key", disk(size=1), "disk xvda of guest web1 has size, which nobody reads"),
    ("journal", disk(journal_bytes=-1), "journal_bytes of disk xvda of guest web1 is '-1'"),
    ("per host", disk(per_host={"delta": {}}), "has per_host for delta, which are not its hosts"),
    ("per host list", disk(per_host=["beta"]), "per_host of disk xvda of guest web1 is not a dictionary"),
    (
        "per host key",
        disk(per_host={"beta": {"devise": "/x"}}),
        "per_host of beta for disk xvda of guest web1 has devise",
    ),
    ("list", lambda inventory: inventory.update(guests={"web1": {}}), "remus_guests is not a list"),
    ("entry", guests("web1"), "entry 1 of remus_guests is not a dictionary"),
    ("twice", guests(*[{"name": "web1", "hosts": ["alpha", "beta"]}] * 2), "a guest is twice in remus_guests"),
    ("of its own", host("beta", remus_guests=[]), "remus_guests of beta is not the list that the controller sees"),
    ("members", guest(members={"app1": {}}), "members of guest web1 is not a list of dictionaries"),
    ("member", group(["app1", "db1"]), "members of guest shop is not a list of dictionaries"),
    ("one member", group([{"name": "app1"}]), "group shop has 1 members; 2 to 8 are possible"),
    ("no member's name", group([{"name": "app1"}, {}]), "member 2 of group shop has no name"),
    ("a copy's name", group(MEMBERS, name="a--of-b"), "named 'a--of-b', which no agent accepts. Next: rename"),
    ("long member", group([{"name": "app1"}, {"name": "d" * 49}]), "d of group shop has a name that no agent accepts"),
    ("member's key", group([{"name": "app1"}, {"name": "db1", "hosts": []}]), "member db1 of group shop has hosts"),
    ("member's disk", group([{"name": "app1"}, {"name": "db1", "disks": [{}]}]), "disk 1 of guest db1 has no vdev"),
    (
        "disks of a group",
        group(MEMBERS, disks=[{"vdev": "xvda", "device": "/dev/c"}]),
        "group shop has disks of its own",
    ),
    ("member alone", group([{"name": "app1"}, {"name": "web1"}]), "guest web1: a guest is twice in remus_guests"),
    ("named as its member", group([{"name": "app1"}, {"name": "shop"}]), "guest shop: a guest is twice"),
    (
        "member asked for",
        lambda inventory: (group(MEMBERS)(inventory), inventory.update(domain="db1")),
        "remus_domain is db1, a member of the group shop: it is protected with the others or not at all",
    ),
    (
        "unknown guest",
        lambda inventory: inventory.update(domain="web2"),
        "remus_domain is web2, which is not in remus_guests (web1)",
    ),
]


@pytest.mark.parametrize(("change", "words"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_every_mistake_is_named(run_module: RunModule, change: Change, words: str) -> None:
    assert any(words in reason for reason in reasons(run_module, change)), reasons(run_module, change)


def test_all_of_them_at_once(run_module: RunModule) -> None:
    """Whatever else is wrong hides nothing: as many reasons as mistakes, and one that follows from another."""
    mistakes = [
        host("alpha", remus_replication_address=None),
        host("beta", remus_second_address="x"),
        witness(remus_witness_address=""),
        guest(hosts=["alpha", "alpha", "delta"], interval_ms=-1, disk=[]),
        disk(vdev=""),
    ]

    def change(inventory: dict[str, Any]) -> None:
        for mistake in mistakes:
            mistake(inventory)

    assert len(reasons(run_module, change)) == 9, reasons(run_module, change)


def test_names_are_refused_as_the_agents_do(run_module: RunModule) -> None:
    """Of a group and of its members; a guest by itself may have a longer one."""
    names = ["s" * 48, "s" * 49, "a--of-b", "a--incoming-b", "a-of-b", "_a.b+c:d@e=f-g", "-a", "a b"]
    for name in names:
        for unit, members in ((name, ["app1", "db1"]), ("shop", [name, "db1"])):
            try:
                parse({unit: {"members": members}})
                accepted = True
            except ConfigError:
                accepted = False

            def change(inventory: dict[str, Any], unit: str = unit, members: list[str] = members) -> None:
                entry = {"name": unit, "hosts": ["alpha", "beta"], "members": [{"name": member} for member in members]}
                inventory["guests"].append(entry)

            assert (reasons(run_module, change) == []) is accepted, (unit, members)
    assert reasons(run_module, guest(name="s" * 49)) == []


def test_one_machine_behind_two_ports_is_two(run_module: RunModule) -> None:
    """As the nested hosts of the lab are, and hosts behind a gateway that forwards ports."""

    def change(inventory: dict[str, Any]) -> None:
        for number, facts in enumerate(inventory["hosts"].values()):
            facts.update(ansible_host="127.0.0.1", ansible_port=2211 + number)

    assert reasons(run_module, change) == []


def test_the_playbook_hands_over_every_variable_that_is_read() -> None:
    look, _ = yaml.safe_load((ROOT / "playbooks/tasks/inventory.yml").read_text())
    for variable in look["vars"]["remus_inventory_variables"]:
        sources = [*(ROOT / "module_utils/remus").glob("inventory_*.py"), ROOT / "library/remus_inventory.py"]
        assert any(f'"{variable}"' in path.read_text() for path in sources), variable
        assert f"C({variable})" in (ROOT / "library/remus_inventory.py").read_text(), variable
