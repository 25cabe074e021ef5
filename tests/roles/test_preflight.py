"""playbooks/preflight.yml against wrong inventories and against hosts that are this machine: all at once, nothing changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.roles.local_play import run_playbook

pytestmark = [pytest.mark.playbooks, pytest.mark.timeout(900)]


def preflight(folder: Path, hosts: dict[str, Any], witnesses: dict[str, Any], guests: Any, **more: str) -> str:
    """What it says against them; it always says something here."""
    groups = {
        "remus_hosts": {"hosts": hosts, "vars": {"xen_host_install": False}},
        "remus_witnesses": {"hosts": witnesses},
    }
    code, text = run_playbook(folder, {"children": groups}, "preflight", variables={"remus_guests": guests, **more})
    assert code != 0, text
    assert "changed=0" in text
    assert not re.search(r"changed=[1-9]", text), text
    return text


def test_a_wrong_inventory_is_refused_with_everything_that_is_wrong_with_it(tmp_path: Path) -> None:
    hosts = {
        "alpha": {"remus_replication_address": "192.0.2.1", "remus_agent_peers": {"delta": "192.0.2.4:7789"}},
        "beta": {"remus_replication_address": "192.0.2.1", "remus_second_address": "beta.example"},
        "gamma": {},
    }
    guests = [
        {"name": "web1", "hosts": ["alpha", "beta", "gamma"]},
        {"name": "web2", "hosts": ["alpha", "alpha"], "interval": 20},
        {"name": "web2", "hosts": ["alpha", "epsilon"]},
    ]
    text = preflight(tmp_path, hosts, {"beta": {"remus_witness_address": "192.0.2.9"}}, guests, remus_target="alhpa")
    said = " ".join(text.split())
    for words in (
        "The inventory is not usable, nothing was changed",
        "gamma has no remus_replication_address",
        "alpha and beta have the same remus_replication_address 192.0.2.1",
        "remus_second_address of beta is 'beta.example'",
        "remus_agent_peers of alpha names delta",
        "witness beta is one of the hosts of remus_hosts",
        "it has alpha, beta, gamma: 3 of them",
        "it has alpha, alpha: alpha twice",
        "guest web2 has interval, which nobody reads",
        "epsilon unknown to that group",
        "a guest is twice in remus_guests",
        "remus_target is 'alhpa', which no host and no group of the inventory is called",
    ):
        assert words in said, words
    assert "PLAY [Preflight | The hosts]" not in text, "nobody is asked with such an inventory"


@pytest.mark.parametrize("playbook", ["failover", "upgrade"])
def test_a_run_without_the_controller_is_refused(tmp_path: Path, playbook: str) -> None:
    """With --limit: the plays that ask and decide would be left out, and the run would have done nothing and succeeded."""
    hosts = {
        name: {"remus_replication_address": f"192.0.2.{number}"} for number, name in enumerate(("alpha", "beta"), 1)
    }
    variables = {"remus_guests": [{"name": "web1", "hosts": ["alpha", "beta"]}]}
    inventory = {"children": {"remus_hosts": {"hosts": hosts}}}
    words = ("--limit", "beta", "-e", "remus_domain=web1")
    code, text = run_playbook(tmp_path, inventory, playbook, *words, variables=variables)
    assert code != 0, text
    assert "localhost does not take part (--limit beta), so nothing was changed" in " ".join(text.split())
    assert "Ask it" not in text


def test_hosts_are_refused_with_what_every_role_has_against_them(tmp_path: Path) -> None:
    """This machine twice: no Xen, no such disk, no such address; and a host that nobody can reach."""
    hosts = {
        name: {"remus_replication_address": f"203.0.113.{number}"} for number, name in enumerate(("a", "b", "c"), 1)
    }
    hosts["a"] |= {"remus_agent_watchdog_seconds": 180}
    hosts["b"] |= {
        "remus_agent_fencing": {"z": {"agent": "fence_x", "ip": "192.0.2.9"}},
        "remus_agent_witness": True,
        "remus_agent_second_address": "198.51.100.2",
        "remus_agent_second_paths": {"a": "198.51.100.1:7790"},
    }
    hosts["c"] |= {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    disks = [{"vdev": "xvda", "device": "/dev/none/web1"}]
    text = preflight(tmp_path, hosts, {}, [{"name": "web1", "hosts": ["a", "b"], "disks": disks}])
    said = " ".join(text.split("PLAY [Preflight | What the hosts said]")[1].split())
    for host in ("a", "b"):
        assert f"{host} cannot protect guests, nothing was changed" in said
        assert f"The settings of the agent of {host} are not usable, nothing was changed" in said
        assert f"The disks of {host} cannot be protected" in said
        assert f"The replication network of {host} is not usable" in said
    assert "without a witness it would never be armed" in said
    assert "it needs a second path to c" in said
    assert "remus_agent_fencing names z" in said
    assert "remus_agent_fencing has no key ip" in said
    assert "c does not answer" in said
    assert "a and b are the same machine" in said


def test_a_host_on_which_ansible_cannot_begin_is_told_what_to_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No sudo, a sudo that asks for a password, no Python: what a fresh Debian may have. In Ansible's own words: Mitogen has
    others, and to it a host without Python is one that does not answer."""
    for name in ("ANSIBLE_STRATEGY", "ANSIBLE_STRATEGY_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    asks = tmp_path / "sudo"
    asks.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    asks.chmod(0o755)
    hosts: dict[str, Any] = {
        name: {"remus_replication_address": f"203.0.113.{number}"} for number, name in enumerate(("a", "b", "c"), 1)
    }
    hosts["a"] |= {"ansible_become": True, "ansible_become_user": "nobody", "ansible_become_exe": "/none/sudo"}
    hosts["b"] |= {"ansible_become": True, "ansible_become_user": "nobody", "ansible_become_exe": str(asks)}
    hosts["c"] |= {"ansible_python_interpreter": "/none/python3"}
    text = preflight(tmp_path, hosts, {}, [{"name": "web1", "hosts": ["a", "b"]}])
    said = " ".join(text.split("PLAY [Preflight | What the hosts said]")[1].split())
    for words in (
        r"a cannot be looked at: [^.]*\.[^.]*/none/sudo: not found\. Next: ",
        r"b cannot be looked at: [^.]*\.[^.]*sudo: a password is required\. Next: ",
        r"c cannot be looked at: The module interpreter '/none/python3' was not found\. .*/none/python3: not found\. Next: ",
    ):
        assert re.search(words, said), said
    assert said.count("Next: log in to it as the inventory says: python3 has to be there") == 2 * len(hosts), (
        "told twice by Ansible"
    )


def test_settings_of_a_wrong_type_are_refused_before_anything_relies_on_them(tmp_path: Path) -> None:
    """Of every role that a host gets, at once; site.yml would come to some of them after others have changed the host."""
    wrong = {
        "xen_host_dom0_memory_mib": "4 GiB",
        "remus_agent_keep": "two",
        "remus_storage_nbd_devices": "many",
        "remus_network_mtu": "jumbo",
    }
    hosts = {name: {"remus_replication_address": f"203.0.113.{number}", **wrong} for number, name in enumerate("ab", 1)}
    text = preflight(tmp_path, hosts, {}, [{"name": "web1", "hosts": ["a", "b"]}])
    said = " ".join(text.split("PLAY [Preflight | What the hosts said]")[1].split())
    assert text.count("rescued=4") == len(hosts), "each role has something against each of them"
    for name in wrong:
        assert f"argument '{name}'" in said, name
