"""After site.yml and protect.yml on bare Debian: Xen runs as asked, the bridge has the port's address, the guest is protected."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from pair import agent
from pair.guest import answers, running_copies
from pair.hosts import ADDRESSES, GUEST, PROJECT, run
from pair.wait import until

pytestmark = pytest.mark.timeout(3600)

MIB = 900
MARKED = "# Managed by Ansible (role xen_host)."


def name_of(host):
    """The lab's name of a testinfra host."""
    return host.check_output("hostname --short")


def info(host):
    """`xl info` as a dictionary."""
    lines = host.check_output("xl info").splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_it_is_dom0_of_the_releases_xen(host):
    assert "control_d" in host.file("/proc/xen/capabilities").content_string
    version = {"12": "4.17", "13": "4.20"}[host.system_info.release.split(".")[0]]
    assert host.check_output(
        "cat /sys/hypervisor/version/major /sys/hypervisor/version/minor"
    ).split() == version.split(".")
    assert host.system_info.release.startswith(os.environ.get("LAB_DEBIAN") or "13")


def test_xen_was_started_by_grub_as_the_inventory_says(host):
    words = info(host)["xen_commandline"].split()
    assert {f"dom0_mem={MIB}M,max:{MIB}M", "dom0_max_vcpus=1"} <= set(words)
    assert "com1=115200,8n1" in words, "what others have said for Xen stays"
    dom0 = host.check_output("xl list Domain-0").splitlines()[1].split()
    assert dom0[2:4] == [str(MIB), "1"]


def test_what_only_emulation_needs_is_the_labs(host):
    assert "clearcpuid=cx16" in host.file("/proc/cmdline").content_string
    settings = host.file("/etc/default/grub.d/remus.cfg").content_string
    assert settings.splitlines() == [
        MARKED,
        f'GRUB_CMDLINE_XEN_DEFAULT="$GRUB_CMDLINE_XEN_DEFAULT dom0_mem={MIB}M,max:{MIB}M dom0_max_vcpus=1"',
        "XEN_OVERRIDE_GRUB_DEFAULT=1",
    ]


def test_the_ports_addresses_are_the_bridges(host):
    number = ADDRESSES[name_of(host)].rpartition(".")[2]
    links = {link["ifname"]: link for link in json.loads(host.check_output("ip -json address show"))}

    def addresses(name):
        return {found["local"] for found in links[name]["addr_info"] if found["scope"] == "global"}

    assert links["eth1"]["master"] == "xenbr0"
    assert addresses("eth1") == set()
    assert addresses("xenbr0") == {f"10.77.0.{number}", f"fd77::{number}"}
    assert links["eth1"]["address"] == links["xenbr0"]["address"], "DHCP and neighbours know the host by it"
    assert addresses("eth2") == {ADDRESSES[name_of(host)]}


def test_the_bridge_comes_back_with_every_boot(host):
    assert host.service("networking").is_enabled
    text = host.file("/etc/network/interfaces.d/lab").content_string
    assert re.search(r"^auto xenbr0$", text, re.MULTILINE)
    assert "iface eth1" not in text
    booted = float(host.check_output("sed -n 's/^btime //p' /proc/stat"))
    assert host.file("/etc/network/interfaces.d/lab").mtime.timestamp() < booted, "it was made before the reboot"


def test_the_agent_runs(host):
    for unit in ("remus-agent", "remus-supervisor"):
        assert host.service(unit).is_running
        assert host.service(unit).is_enabled


def test_the_pair_protects_the_guest(host):
    name = name_of(host)
    state = agent.status(name)
    assert (state["role"], state["state"]) == {"alpha": ("primary", "protected"), "beta": ("backup", "ready")}[name]
    until(
        f"commits on {name}",
        lambda: agent.status(name),
        lambda now: now["committed_epoch"] >= state["committed_epoch"] + 5,
        timeout=300,
    )


def test_the_pair_has_its_witness_and_certificates(host):
    told = agent.ask(name_of(host), "agent")
    assert told["tls"] is not None
    assert "error" not in told["tls"]
    assert host.file("/etc/remus/agent.toml").contains("[witness]")


def test_exactly_one_copy_runs(host):
    assert [(copy.host, copy.name) for copy in running_copies()] == [("alpha", GUEST)]
    until("the guest answers", answers, timeout=120)


@pytest.mark.parametrize("playbook", ["playbooks/site.yml", "protect.yml"])
def test_check_says_that_nothing_would_be_changed(playbook):
    inventories = ("molecule/inventory", "inventories/lab_witness", "inventories/lab_bare")
    words = [str(Path(sys.executable).with_name("ansible-playbook")), "--check", "--diff"]
    words += [word for name in inventories for word in ("-i", str(PROJECT / name))]
    # Without colour, which molecule asks for: the recap is read.
    said = run(["env", "-u", "ANSIBLE_CONFIG", "ANSIBLE_FORCE_COLOR=false", *words, playbook], timeout=1800)
    changed = re.findall(r"^(\S+)\s+: ok=.* changed=(\d+)", said, re.MULTILINE)
    assert {name for name, _ in changed} >= {"alpha", "beta"}
    assert {count for _, count in changed} == {"0"}, said
