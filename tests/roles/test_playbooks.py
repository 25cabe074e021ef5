"""The playbooks against two fake agents on this machine: who is asked, what is refused, what a second run does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.modules.conftest import ROOT
from tests.modules.test_protection import status
from tests.roles.local_play import run_plays
from tests.roles.playbook_pair import NOT_FOUND, UNPROTECTED, Pair, two_agents

pytestmark = [pytest.mark.playbooks, pytest.mark.timeout(900)]  # four playbook runs on a busy machine


@pytest.fixture
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Guest web1 runs on alpha, unprotected."""
    with two_agents(tmp_path_factory.mktemp("p")) as made:  # a short path: sockets are in it
        yield made


def test_protect_twice_then_unprotect(pair: Pair) -> None:
    pair.play("protect", "--check", "--diff")
    assert pair.mutating == []
    text = pair.play("protect")
    assert pair.mutating == [("alpha", "protect")]
    assert "web1: protected, alpha -> beta" in text
    assert text.count("TASK [inventory | Look at what it says]") == 1, "not once more for the verdict"
    assert "changed=0" in pair.play("protect").split("PLAY RECAP")[1].splitlines()[3]
    assert pair.mutating == [("alpha", "protect")]
    assert [record["play"] for record in pair.results()][-1] == "protect"
    assert pair.results()[-1]["guests"][0]["protected"] is True
    assert "web1: unprotected, runs on alpha" in pair.play("unprotect", "-e", "remus_domain=web1")
    assert pair.mutating == [("alpha", "protect"), ("alpha", "unprotect")]


def test_protect_follows_the_guest_not_the_inventory(pair: Pair) -> None:
    pair.said = {"alpha": NOT_FOUND, "beta": UNPROTECTED}
    assert "web1: protected, beta -> alpha" in pair.play("protect")
    assert pair.mutating == [("beta", "protect")]


def cannot(pair: Pair) -> None:
    """The probe says no."""
    reasons = [{"code": "memory", "message": "beta has 3 MiB free", "hint": "stop a guest there"}]
    pair.agents["alpha"].answers["probe"] = {"ok": False, "reasons": reasons, "facts": {}}


def nowhere(pair: Pair) -> None:
    """The guest runs on neither host."""
    pair.said = {"alpha": NOT_FOUND, "beta": NOT_FOUND}


def twice(pair: Pair) -> None:
    """The guest runs on both."""
    pair.said = {"alpha": UNPROTECTED, "beta": UNPROTECTED}


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (cannot, "beta has 3 MiB free"),
        (nowhere, "runs on neither alpha nor beta"),
        (twice, "claimed by alpha and beta"),
    ],
)
def test_protect_refuses(pair: Pair, prepare: Callable[[Pair], None], words: str) -> None:
    prepare(pair)
    text = pair.play("protect", fails=True)
    assert words in text
    assert pair.mutating == []


def test_preflight_asks_about_guests_once_there_are_agents(pair: Pair) -> None:
    pair.play("preflight")
    cannot(pair)
    assert "beta has 3 MiB free" in pair.play("preflight", fails=True)
    pair.facts["alpha"]["remus_agent_run_dir"] = pair.facts["beta"]["remus_agent_run_dir"] = str(pair.folder / "none")
    assert "No agent answers" in pair.play("preflight")
    assert "does not answer" in pair.play("protect", fails=True)
    assert pair.mutating == []


def test_preflight_names_every_guest_and_mixed_versions_at_once(pair: Pair) -> None:
    cannot(pair)
    pair.agents["beta"].answers["agent"] |= {"version": "0.2.0"}
    names = [{"name": name, "hosts": ["alpha", "beta"]} for name in ("web1", "web2")]
    words = ("-e", json.dumps({"remus_guests": names}))
    text = pair.play("preflight", *words, fails=True)
    assert "web2 runs on neither alpha nor beta" in text
    assert "different versions of agent: alpha has 0.1.0, beta has 0.2.0" in text
    assert "web1: " in text
    assert "beta has 3 MiB free" in text
    text = pair.play("preflight", *words, "-e", "remus_accept_mixed_versions=true", fails=True)
    assert "different versions of agent" not in text
    assert "web2 runs on neither alpha nor beta" in text
    assert pair.mutating == []


def test_a_proof_that_is_none_is_named_before_it_is_needed(pair: Pair) -> None:
    """One that says `off` of a host that is on would bring about what it is to prevent."""
    pair.facts["alpha"]["remus_fence_status_command"] = "echo off"
    pair.facts["beta"]["remus_fence_status_command"] = "echo no such board >&2; exit 1"
    text = " ".join(pair.play("protect", fails=True).split())
    assert "remus_fence_status_command of alpha says off, and the host has just answered" in text
    assert pair.mutating == []
    pair.facts["alpha"]["remus_fence_status_command"] = "echo on"
    text = " ".join(pair.play("preflight").split())
    assert "remus_fence_status_command of beta printed '' (exit 1) no such board" in text
    assert "remus_fence_status_command of alpha" not in text


def test_a_peer_outside_of_the_pair_is_named(pair: Pair) -> None:
    pair.said = {"alpha": status(peer="gamma"), "beta": NOT_FOUND}
    text = pair.play("protect", fails=True)
    assert "alpha says that the backup of web1 is gamma, but the inventory pairs it with beta" in text
    assert pair.mutating == []


def orphan(pair: Pair) -> None:
    """web1 was protected, then alpha went."""
    pair.said = {"alpha": status(), "beta": status("backup", "orphaned", "alpha")}
    pair.kill("alpha")


def test_failover_once(pair: Pair) -> None:
    orphan(pair)
    pair.facts["alpha"]["remus_fence_status_command"] = "echo off"
    pair.play("failover", "-e", "remus_domain=web1", "--check", "--diff")
    assert pair.mutating == []
    text = pair.play("failover", "-e", "remus_domain=web1")
    assert "web1: runs unprotected on beta, taken over at epoch 8 (generation 4)" in text
    assert pair.mutating == [("beta", "failover")]
    assert pair.said["beta"]["proof"]["host"] == "alpha"
    assert pair.said["beta"]["proof"]["method"] == "status-command"
    assert pair.results()[-1]["detail"]["fenced"]["method"] == "status-command"
    pair.facts["alpha"]["remus_fence_status_command"] = "echo on"
    assert "there is nothing to do" in pair.play("failover", "-e", "remus_domain=web1")
    assert pair.mutating == [("beta", "failover")]


def test_failover_on_the_operators_word(pair: Pair) -> None:
    orphan(pair)
    pair.facts["alpha"]["remus_fence_status_command"] = ""
    pair.play("failover", "-e", "remus_domain=web1", "-e", "remus_confirm_dead=alpha")
    assert pair.said["beta"]["proof"]["method"] == "operator"
    assert pair.mutating == [("beta", "failover")]


def test_failover_demands_a_proof(pair: Pair) -> None:
    orphan(pair)
    pair.facts["alpha"]["remus_fence_status_command"] = "echo on"
    text = pair.play("failover", "-e", "remus_domain=web1", "-e", "remus_confirm_dead=beta", fails=True)
    assert "alpha is not proven dead" in text
    assert "printed 'on', expected 'off'" in text
    assert "remus_confirm_dead names 'beta', but the old host is alpha" in text
    assert pair.mutating == []


def test_what_is_no_proof(tmp_path: Path) -> None:
    """The tasks of failover.yml that demand one, for several old hosts in one run."""
    said = {  # what remus_fence_status_command of the old host is, and what is said of it
        "fails": ("echo off; exit 3", "(exit 3)"),
        "hangs": ("exit 124", "(no end after 60 s)"),  # as timeout(1) ends; `sleep 300` does the same a minute later
        "cannot": ("echo cannot ask >&2; exit 1", "cannot ask"),
        "without": ("", "It has no remus_fence_status_command"),
    }
    hosts = {"beta": {}, **{name: {"remus_fence_status_command": command} for name, (command, _) in said.items()}}
    tasks = []
    for name in said:
        guest = {"owner": None, "holder": "beta", "hosts": [name, "beta"], "status": {"beta": {"peer": name}}}
        guest |= {"verdict": "", "problems": [], "unsure": {}}
        prove = {"include_tasks": str(ROOT / "playbooks/tasks/prove_dead.yml"), "vars": {"remus_failover_guest": guest}}
        tell = {"debug": {"msg": f"{name}: {{{{ ansible_failed_result.msg }}}} end of {name}"}}
        tasks.append({"block": [prove], "rescue": [tell]})
    play = {"hosts": "localhost", "vars": {"remus_domain": "web1"}, "tasks": tasks}
    code, text = run_plays(tmp_path, {"children": {"remus_hosts": {"hosts": hosts}}}, [play])
    assert code == 0, text
    for name, (_, words) in said.items():
        (told,) = re.findall(rf"{name}: (.*?) end of {name}", " ".join(text.split()))
        assert f"{name} is not proven dead" in told
        assert words in told


def test_a_host_that_cannot_say_what_it_runs_is_not_dead(tmp_path: Path) -> None:
    """xenstored has died, and with it the agent; the guest goes on, and whoever says that its host is off is mistaken."""
    copy = status("backup", "orphaned", "alpha")
    said = {
        "alpha": {"remus_said_agent": {"msg": "No agent answers"}},
        "beta": {"remus_said_agent": {"agent": {}, "domains": [copy]}, "remus_said_host": {"host": {"domains": []}}},
    }
    silent = {"remus_said_host": {"host": {"domains": [], "toolstack_error": "xl: no xenstore"}}}
    booted = {"remus_said_host": {"host": {"domains": [], "toolstack_error": None}}}
    tasks = [
        {"include_tasks": str(ROOT / "playbooks/tasks/decide.yml")},
        {"debug": {"msg": "{{ remus_topology_guests[0].problems }}"}},
        {
            "include_tasks": str(ROOT / "playbooks/tasks/prove_dead.yml"),
            "vars": {"remus_failover_guest": "{{ remus_topology_guests[0] }}"},
        },
    ]
    variables = {"remus_domain": "web1", "remus_guests": [{"name": "web1", "hosts": ["alpha", "beta"]}]}
    play = {"hosts": "localhost", "vars": {"remus_confirm_dead": "alpha"}, "tasks": tasks}
    for xen, proven in ((silent, False), (booted, True)):
        hosts = {**said, "alpha": said["alpha"] | xen}
        inventory = {"children": {"remus_hosts": {"hosts": hosts}}}
        code, text = run_plays(tmp_path, inventory, [play], variables=variables)
        assert (code == 0) is proven, text
        told = " ".join(text.split())
        assert ("alpha answers, and cannot say whether it runs web1: xl: no xenstore" in told) is not proven
        assert ("nobody knows whether web1 runs on alpha" in told) is not proven


def test_a_guest_that_a_host_starts_when_it_boots_is_named(tmp_path: Path) -> None:
    """What the toolstack's host says of it reaches the decision."""
    starts = [{"file": "/etc/xen/auto/web1.cfg", "guest": "web1"}]
    runs = {"domains": [{"name": "web1", "id": 3, "paused": False}], "toolstack_error": None}
    hosts = {
        name: {
            "remus_said_agent": {"agent": {}},
            "remus_said_host": {"host": runs if name == "alpha" else {"autostart": starts}},
        }
        for name in ("alpha", "beta")
    }
    tasks = [
        {"include_tasks": str(ROOT / "playbooks/tasks/decide.yml")},
        {"debug": {"msg": "{{ remus_topology_guests[0].problems }}"}},
    ]
    variables = {"remus_guests": [{"name": "web1", "hosts": ["alpha", "beta"]}]}
    play = {"hosts": "localhost", "tasks": tasks}
    code, text = run_plays(tmp_path, {"children": {"remus_hosts": {"hosts": hosts}}}, [play], variables=variables)
    assert code == 0, text
    assert "beta starts web1 from /etc/xen/auto/web1.cfg when it boots" in " ".join(text.split())


def test_a_command_that_asks_for_a_proof_is_not_shown(tmp_path: Path) -> None:
    """It may have the password of a management board in it; what it prints is told."""
    command = "echo cannot ask >&2; exit 1 # -P hush"
    answers = {"remus_fence_status_command": command, "remus_said_agent": {"agent": {}}}
    guest = {"owner": None, "holder": "beta", "hosts": ["alpha", "beta"], "verdict": "", "problems": [], "unsure": {}}
    tasks = [
        {"include_tasks": str(ROOT / "playbooks/tasks/preflight_proof.yml")},
        {
            "include_tasks": str(ROOT / "playbooks/tasks/prove_dead.yml"),
            "vars": {"remus_failover_guest": {**guest, "status": {"beta": {"peer": "alpha"}}}},
        },
    ]
    hosts = {"alpha": {"remus_fence_status_command": command}, "beta": answers}
    play = {"hosts": "localhost", "vars": {"remus_domain": "web1"}, "tasks": tasks}
    code, text = run_plays(tmp_path, {"children": {"remus_hosts": {"hosts": hosts}}}, [play], "-vvv")
    told = " ".join(text.split())
    assert code != 0
    assert "(exit 1) cannot ask" in told.split("remus_fence_status_command of beta printed")[1]
    assert "alpha is not proven dead" in told
    assert "(exit 1) cannot ask" in told.split("alpha is not proven dead")[1]
    assert "hush" not in text


def test_failover_refuses_while_the_owner_answers(pair: Pair) -> None:
    pair.said = {"alpha": status(), "beta": status("backup", "receiving", "alpha")}
    pair.facts["alpha"]["remus_fence_status_command"] = "echo off"
    text = pair.play("failover", "-e", "remus_domain=web1", "-e", "remus_confirm_dead=alpha", fails=True)
    assert "alpha answers and runs web1" in text
    assert pair.mutating == []


def test_failover_names_what_was_left(pair: Pair) -> None:
    orphan(pair)
    pair.facts["alpha"]["remus_fence_status_command"] = "echo off"
    pair.agents["beta"].answers["failover"] = {"error": {"code": "authority", "message": "the journal is stale"}}
    text = pair.play("failover", "-e", "remus_domain=web1", fails=True)
    assert "the journal is stale" in text
    assert "State left: role backup, state orphaned, committed epoch 8" in text


def test_switchover_and_protection_the_other_way_round(pair: Pair) -> None:
    pair.said = {"alpha": status(), "beta": status("backup", "receiving", "alpha")}
    words = ("-e", "remus_domain=web1", "-e", "remus_switchover_to=beta")
    pair.play("switchover", *words, "--check", "--diff")
    asked = [params.get("dry_run") for method, params in pair.agents["alpha"].requests if method == "switchover"]
    assert asked == [True]
    text = pair.play("switchover", *words)
    assert "web1: protected, beta -> alpha" in text
    assert pair.mutating == [("alpha", "switchover"), ("beta", "protect")]
    before = len(pair.mutating)
    pair.play("switchover", *words)
    assert len(pair.mutating) == before


@pytest.mark.parametrize("state", ["active", "solo"])
def test_a_switchover_that_was_interrupted_when_it_had_moved_the_guest_protects_it_when_run_again(
    pair: Pair, state: str
) -> None:
    pair.said = {
        "alpha": status("none", "absent", None),
        "beta": status("primary", state, "alpha" if state == "solo" else None),
    }
    text = pair.play("switchover", "-e", "remus_domain=web1", "-e", "remus_switchover_to=beta")
    assert "web1: protected, beta -> alpha" in text
    assert pair.mutating == [("beta", "protect")]


@pytest.mark.parametrize("words", [(), ("-e", "remus_switchover_to=gamma")])
def test_switchover_demands_the_host_where_the_guest_shall_run(pair: Pair, words: tuple[str, ...]) -> None:
    """To take the other host than the one where it is would move it back when a run is repeated."""
    pair.said = {"alpha": status(), "beta": status("backup", "receiving", "alpha")}
    text = pair.play("switchover", "-e", "remus_domain=web1", *words, fails=True)
    assert "say where it shall run, with -e remus_switchover_to=HOST, one of alpha, beta" in text
    assert pair.mutating == []


def test_switchover_names_what_was_left(pair: Pair) -> None:
    pair.said = {"alpha": status(), "beta": status("backup", "receiving", "alpha")}
    pair.agents["alpha"].answers["switchover"] = {"error": {"code": "switchover", "message": "the journal is full"}}
    text = pair.play("switchover", "-e", "remus_domain=web1", "-e", "remus_switchover_to=beta", fails=True)
    assert "the journal is full" in text
    assert "alpha: role primary, state protected; beta: role backup, state receiving" in text
    assert "protect" not in [method for _, method in pair.mutating]


def test_a_guest_that_runs_alone_is_protected_again(pair: Pair) -> None:
    pair.said = {"alpha": status("primary", "solo", "beta"), "beta": status("none", "absent", None)}
    text = pair.play("reprotect", "-e", "remus_domain=web1")
    assert "web1: protected, alpha -> beta" in text
    assert pair.mutating == [("alpha", "protect")]


@pytest.mark.parametrize("gone", ["alpha", "beta"])
def test_switchover_names_what_was_left_also_of_a_host_that_is_gone_by_then(pair: Pair, gone: str) -> None:
    """It goes while the guest is being moved."""
    pair.said = {"alpha": status(), "beta": status("backup", "receiving", "alpha")}
    flag = pair.folder / "gone"
    pair.facts[gone] |= {
        "ansible_connection": f"{{{{ 'ssh' if '{flag}' is exists else 'local' }}}}",
        "ansible_host": "127.0.0.1",
        "ansible_port": 1,
    }

    def switchover(params: dict[str, Any]) -> dict[str, Any]:
        flag.touch()
        return {"error": {"code": "switchover", "message": "the link is gone"}}

    pair.agents["alpha"].answers["switchover"] = switchover
    text = pair.play("switchover", "-e", "remus_domain=web1", "-e", "remus_switchover_to=beta", fails=True)
    assert "web1 was not moved to beta: the link is gone" in text
    assert f"{gone}: unknown, the agent does not answer" in text
    other = {"alpha": "beta: role backup", "beta": "alpha: role primary"}[gone]
    assert other in text


@pytest.mark.parametrize(
    ("play", "host", "request_", "words"),
    [
        ("failover", "beta", "failover", "web1 was not taken over by beta: the process is gone"),
        ("failover", "beta", "list", "web1 was not taken over by beta: beta does not answer:"),
        ("protect", "alpha", "protect", "web1 on alpha: the process is gone"),
        ("protect", "alpha", "probe", "web1 on alpha: alpha does not answer:"),
        ("unprotect", "alpha", "unprotect", "web1 on alpha: the process is gone"),
    ],
    ids=lambda part: part.split(":")[0].replace(" ", "-"),
)
def test_a_host_that_is_gone_meanwhile_is_told_in_our_words(
    pair: Pair, play: str, host: str, request_: str, words: str
) -> None:
    """It goes while it carries out this request, which may be the last one before the one that changes something."""
    if play == "failover":
        orphan(pair)
    if play == "unprotect":
        pair.said = {"alpha": status(), "beta": status("backup", "receiving", "alpha")}
    flag = pair.folder / "gone"
    pair.facts[host] |= {
        "ansible_connection": f"{{{{ 'ssh' if '{flag}' is exists else 'local' }}}}",
        "ansible_host": "127.0.0.2",  # two hosts of an inventory have two addresses
        "ansible_port": 1,
    }
    honest = pair.agents[host].answers[request_]

    def last(params: dict[str, Any]) -> Any:
        flag.touch()
        if request_ in ("list", "probe"):
            return honest(params) if callable(honest) else honest
        return {"error": {"code": "hypervisor", "message": "the process is gone"}}

    pair.agents[host].answers[request_] = last
    confirmed = ("-e", "remus_confirm_dead=alpha") if play == "failover" else ()
    text = " ".join(pair.play(play, "-e", "remus_domain=web1", *confirmed, fails=True).split())
    assert words in text
    assert "State left: unknown, the agent does not answer" in text
    assert "Next: " in text


@pytest.mark.parametrize("play", ["failover", "unprotect", "switchover", "reprotect"])
def test_a_guest_must_be_named(pair: Pair, play: str) -> None:
    assert "Which guest?" in pair.play(play, fails=True)
    assert pair.mutating == []


def test_a_guest_must_be_one_of_the_inventory(pair: Pair) -> None:
    """Whoever takes the name of one looks at the inventory before anything else is done."""
    words = ("-e", "remus_domain=web2")
    assert "remus_domain is web2, which is not in remus_guests (web1)" in pair.play("failover", *words, fails=True)
    assert pair.mutating == []
    for name in ("failover", "unprotect", "switchover", "reprotect", "protect", "preflight", "drill"):
        assert looks_first(name), name


def looks_first(name: str) -> bool:
    """A playbook imports the look at the inventory first, after nothing but questions of what was given with -e."""
    for play in yaml.safe_load((ROOT / f"playbooks/{name}.yml").read_text()):
        if imported := play.get("ansible.builtin.import_playbook"):
            return imported == "preflight_hosts.yml" or looks_first(imported.removesuffix(".yml"))
        if any(set(task) - {"name", "ansible.builtin.assert"} for task in play["tasks"]):
            return False
    return False


def test_unprotect_loses_a_copy_only_when_told(pair: Pair) -> None:
    orphan(pair)
    text = pair.play("unprotect", "-e", "remus_domain=web1", fails=True)
    assert "remus_discard_copy=true" in text
    assert pair.mutating == []
    pair.play("unprotect", "-e", "remus_domain=web1", "-e", "remus_discard_copy=true")
    assert pair.mutating == [("beta", "unprotect")]


def test_unprotect_does_not_end_well_where_nobody_could_be_asked(pair: Pair) -> None:
    """The backup is gone and the agent of the guest's host does not answer: its output is held still."""
    pair.said = {"alpha": status(state="silent"), "beta": NOT_FOUND}
    pair.facts["alpha"]["remus_agent_run_dir"] = str(pair.folder / "none")
    pair.kill("beta")
    text = " ".join(pair.play("unprotect", "-e", "remus_domain=web1", fails=True).split())
    assert "Nobody says who protects web1, and nothing was changed: alpha does not answer: No agent answers" in text
    assert "journalctl -u remus-agent" in text


def test_status_reports_a_dead_host(pair: Pair) -> None:
    orphan(pair)
    text = pair.play("status")
    assert "web1: owner unknown, beta holds a copy (orphaned, committed epoch 8) of alpha" in text
    assert "TASK [inventory | Look at what it says]" in text
    assert "alpha does not answer" in text
    assert pair.mutating == []


def test_every_reason_against_an_inventory_at_once(pair: Pair) -> None:
    pair.facts["beta"]["remus_replication_address"] = "192.0.2.1"
    del pair.facts["alpha"]["remus_fence_status_command"]
    guests = json.dumps(
        {"remus_guests": [{"name": "web1", "hosts": ["alpha", "gamma"]}, {"name": "web1", "hosts": ["alpha"]}]}
    )
    text = pair.play("preflight", "-e", guests, fails=True)
    assert "alpha and beta have the same remus_replication_address 192.0.2.1" in text
    assert "it has alpha, gamma" in text
    assert "a guest is twice in remus_guests" in text
    disks = [
        {"vdev": "xvda", "device": "/dev/a"},
        {"vdev": "xvda", "device": "/dev/b", "per_host": {"gamma": {}}},
        {"vdev": "xvdb"},
    ]
    guests = json.dumps({"remus_guests": [{"name": "web1", "hosts": ["alpha", "beta"], "disks": disks}]})
    text = pair.play("preflight", "-e", guests, fails=True)
    assert "disk 3 of guest web1 has no vdev or no device" in text
    assert "disk xvda of guest web1 has per_host for gamma, which are not its hosts" in text
    assert "guest web1 has a vdev twice in its disks" in text


def test_no_play_forces_its_connection_on_delegates() -> None:
    """`connection: local` on a play also holds for tasks that it delegates to hosts without ansible_connection."""
    for name in (
        "site",
        "monitoring",
        "preflight",
        "protect",
        "unprotect",
        "status",
        "failover",
        "switchover",
        "reprotect",
        "upgrade",
        "support_bundle",
    ):
        for play in yaml.safe_load((ROOT / f"playbooks/{name}.yml").read_text()):
            assert "connection" not in play, name
