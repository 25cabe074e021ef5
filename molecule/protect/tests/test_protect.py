"""After site.yml and protect.yml: the agents run as they should, and the guest is protected by exactly one pair."""

import pytest
from pair import agent
from pair.guest import answers, running_copies
from pair.hosts import ADDRESSES, GUEST
from pair.wait import until

pytestmark = pytest.mark.timeout(3600)

PORT = 7789
HTTP_PORT = 7791
HTTP_TEXT = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=60).read().decode())"
HTTP_STATUS = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=60).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
HEALTH = {
    "alpha": {"primary": "200", "protected": "200", "readiness": "200"},
    "beta": {"primary": "503", "protected": "503", "readiness": "200"},
}
UNITS = ("remus-agent.service", "remus-supervisor.service")
EXPOSURE = {"remus-agent.service": 75, "remus-supervisor.service": 29, "remus-disks.service": 29}
"""Tenths of what `systemd-analyze security` counts, at most. xl, hotplug scripts and device models run inside the agent's unit,
which says what that leaves open."""
EVERYWHERE = {"RestrictSUIDSGID": "yes", "LockPersonality": "yes"}
HARDENING = {
    # xl and Xen's hotplug scripts run inside the agent; why not more is written in the unit.
    "remus-agent.service": {
        **EVERYWHERE,
        "ProtectHostname": "yes",
        "ProtectSystem": "full",
        "ProtectHome": "read-only",
    },
    "remus-supervisor.service": {
        **EVERYWHERE,
        "NoNewPrivileges": "yes",
        "PrivateTmp": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
    },
}


def name_of(host):
    """The lab's name of a testinfra host."""
    return host.check_output("hostname --short")


def journal(host, unit):
    """The end of a unit's journal, for failures."""
    return host.run(f"journalctl --no-pager -u {unit} -n 50").stdout


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_runs_and_starts_at_boot(host, unit):
    service = host.service(unit.removesuffix(".service"))
    assert service.is_running, journal(host, unit)
    assert service.is_enabled


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_is_hardened(host, unit):
    names = ",".join(HARDENING[unit])
    said = host.check_output(f"systemctl show -p {names} {unit}")
    assert dict(line.split("=", 1) for line in said.splitlines()) == HARDENING[unit]


@pytest.mark.parametrize("unit", EXPOSURE)
def test_the_unit_is_exposed_no_more_than_it_has_to_be(host, unit):
    done = host.run(f"systemd-analyze security --no-pager --threshold={EXPOSURE[unit]} {unit}")
    assert done.rc == 0, "\n".join(line for line in done.stdout.splitlines() if not line.startswith("✓"))


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_comes_back_by_itself(host, unit):
    assert host.check_output(f"systemctl show -P Restart {unit}") in {"always", "on-failure"}


def test_it_listens_on_the_replication_network_alone(host):
    listeners = host.check_output(f"ss -Hltn sport = :{PORT}").splitlines()
    addresses = [line.split()[3] for line in listeners]
    assert addresses == [f"{ADDRESSES[name_of(host)]}:{PORT}"]


def test_the_control_socket_is_closed_to_others(host):
    socket = host.file("/run/remus/agent.sock")
    assert socket.is_socket
    assert socket.mode == 0o660
    assert socket.user == "root"


def test_the_configuration_is_closed_to_others(host):
    assert host.file("/etc/remus/agent.toml").mode & 0o007 == 0


def test_the_host_knows_its_role(host):
    name = name_of(host)
    state = agent.status(name)
    expected = {"alpha": ("primary", "protected"), "beta": ("backup", "ready")}[name]
    assert (state["role"], state["state"]) == expected, state
    assert {"alpha": "beta", "beta": "alpha"}[name] == state["peer"]


def test_both_sides_name_the_same_session(host):
    assert agent.session(agent.status("alpha")) == agent.session(agent.status("beta"))


def test_epochs_rise_on_both_sides(host):
    name = name_of(host)
    before = agent.status(name)["committed_epoch"]
    until(
        f"commits on {name}",
        lambda: agent.status(name),
        lambda state: state["committed_epoch"] >= before + 5,
        timeout=120,
    )


def test_exactly_one_copy_runs_on_both_hosts_together(host):
    found = running_copies()
    assert [(copy.host, copy.name) for copy in found] == [("alpha", GUEST)]


def test_the_guest_answers(host):
    until("the guest answers", answers, timeout=60)


def test_the_command_line_agrees(host):
    said = host.check_output("remusctl -o json status %s", GUEST)
    assert f'"{GUEST}"' in said


def test_the_shell_completes_its_commands(host):
    completion = host.file("/usr/local/share/bash-completion/completions/remusctl")
    assert completion.contains("complete -F _remusctl remusctl")


def test_it_serves_metrics_and_health_on_one_address(host):
    name = name_of(host)
    url = f"http://10.77.0.{ADDRESSES[name].rpartition('.')[2]}:{HTTP_PORT}"
    listeners = host.check_output(f"ss -Hltn sport = :{HTTP_PORT}").splitlines()
    assert [f"http://{line.split()[3]}" for line in listeners] == [url]
    answers_by_path = {
        path: host.check_output("python3 -c %s %s", HTTP_STATUS, f"{url}/{path}?domain={GUEST}")
        for path in HEALTH[name]
    }
    assert answers_by_path == HEALTH[name]
    metrics = host.check_output("python3 -c %s %s", HTTP_TEXT, f"{url}/metrics")
    assert f'remus_domain_ready{{domain="{GUEST}"}} 1.0' in metrics.splitlines()
