"""Alerts on the lab's pair: what one is about is brought about, it fires, its section of docs/runbook.md is followed, it ends.

The rules are those of the role remus_monitoring, of real agents, in a real Prometheus; only that they wait is left out, and they
look back for half a minute instead of five. With a witness (`witnessed.py`).
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from pair import agent, faults, redis
from pair.disks import take_away
from pair.guest import WITH_DISK, come_home, copies, running_copies
from pair.hosts import GUEST, HOSTS, CommandFailed, heal_links, labctl, on, run, ssh_config
from pair.incidents import INCIDENTS, WITNESS
from pair.protection import NOT_YET, SEED_TIMEOUT, cut, die, require_agents, wait_protected
from pair.wait import until
from pair.witness import play
from prometheus_server import RULES, Prometheus
from scraped import scraping
from witnessed import AUTOMATIC, runs_on

from tests.certificates import DAY

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(5400)]

FIRES = 240.0
"""Seconds for what was brought about to be noticed, scraped and evaluated."""
BOTH_INVENTORIES = ("lab", "lab_witness")
CERTIFICATE = "/etc/remus/tls/host.pem"
FLOODS = 24
"""Clients that ask for more than may be held; of each answer a few kilobytes are on their way until they are acknowledged."""
ANSWER_BYTES = 100_000
LEAST_LIMIT = 65536
DOM0_SHARE = 20
"""Hundredths of a processor; with so few everything there takes five times as long."""


@pytest.fixture(scope="module")
def server(witness: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It scrapes both agents, with rules that do not wait."""
    folder = tmp_path_factory.mktemp("prometheus")
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
            rule["expr"] = rule["expr"].replace("[5m]", "[30s]")
    path = folder / "rules.yml"
    path.write_text(yaml.safe_dump(rules))
    with scraping(folder, path) as running:
        yield running


@pytest.fixture
def protected(server: Prometheus) -> Iterator[None]:
    """The guest on alpha, protected to beta, which the record names; of an earlier test if it is so already."""
    heal_links()
    require_agents()
    if not agent.protected(agent.status("alpha")):
        come_home()
        protect()
    until("the backup is named", lambda: agent.status("alpha"), lambda seen: not seen["reason"], timeout=AUTOMATIC)
    yield
    heal_links()


def protect(**more: int) -> None:
    agent.ask("alpha", "protect", timeout=SEED_TIMEOUT, domain=GUEST, peer="beta", wait=False, **more)
    wait_protected()


def protect_again(**more: int) -> None:
    """With other settings."""
    agent.ask("alpha", "unprotect", timeout=300, domain=GUEST, force=True)
    until("beta forgets it", lambda: agent.status("beta")["role"], lambda role: role == "none", timeout=120)
    protect(**more)


def fires(server: Prometheus, alert: str, **labels: str) -> None:
    """Wait until it does, about this host or guest."""
    wanted = {"alertname": alert, **labels}.items()
    until(
        f"{alert} fires for {labels}",
        server.firing,
        lambda found: any(wanted <= each.items() for each in found),
        timeout=FIRES,
    )
    print(f"{alert} fires")


def end(server: Prometheus, *alerts: str) -> None:
    """Wait until none of them fires any more."""
    until(
        f"{', '.join(alerts)} end",
        lambda: {each["alertname"] for each in server.firing()} & set(alerts),
        lambda left: not left,
        timeout=FIRES,
    )


def says(host: str, command: str, words: str) -> None:
    """A command of the runbook, whatever its exit code, says something that matches `words`, after a while if need be."""
    until(
        f"`{command}` on {host} says {words}",
        lambda: on(host, f"{command} 2>&1 || true"),
        lambda said: re.search(words, said),
        timeout=AUTOMATIC,
        every=2,
    )


def test_an_agent_that_is_gone(server: Prometheus, protected: None) -> None:
    """RemusAgentDown, RemusGuestSilent, RemusGuestUnprotected."""
    on("beta", "systemctl stop remus-agent.service", timeout=180)
    try:
        fires(server, "RemusAgentDown", instance="beta")
        fires(server, "RemusGuestSilent", instance="alpha", domain=GUEST)
        says("beta", "systemctl status --no-pager remus-agent", "inactive")
        says("alpha", f"remusctl status {GUEST}", "silent|solo")
        fires(server, "RemusGuestUnprotected", instance="alpha", domain=GUEST)
        says("alpha", f"remusctl status {GUEST}", "solo")
    finally:
        on("beta", "systemctl start remus-agent.service", timeout=180)
    wait_protected()
    end(server, "RemusAgentDown", "RemusGuestSilent", "RemusGuestUnprotected")


def test_a_supervisor_that_is_gone(server: Prometheus, protected: None) -> None:
    """RemusSupervisorDown."""
    on("alpha", "systemctl stop remus-supervisor.service", timeout=180)
    try:
        fires(server, "RemusSupervisorDown", instance="alpha")
        says("alpha", "systemctl status --no-pager remus-supervisor", "inactive")
        says("alpha", "journalctl --no-pager -n 20 -u remus-supervisor", "Stopped")
    finally:
        on("alpha", "systemctl restart remus-supervisor.service", timeout=180)
    end(server, "RemusSupervisorDown")
    wait_protected()


def signed(days: float) -> str:
    """beta's certificate once more, as valid as that, by the site's CA."""
    _, begin, rest = (
        (ssh_config().parent / "pki/ca.pem").read_text().rpartition("-----BEGIN ")
    )  # the certificate, the key
    key = serialization.load_pem_private_key((begin + rest).encode(), password=None)
    now = x509.load_pem_x509_certificate(on("beta", f"cat {CERTIFICATE}").encode())
    builder = x509.CertificateBuilder(
        now.issuer, now.subject, now.public_key(), x509.random_serial_number(),
        now.not_valid_before_utc, now.not_valid_before_utc + DAY * (days + 1), list(now.extensions),
    )  # fmt: skip
    made = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]  # the CA's is an elliptic one
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_certificates(server: Prometheus, protected: None) -> None:
    """RemusCertificateExpiring, RemusCertificateUnusable: one playbook mends both, and no session notices."""
    session = agent.session(agent.status("alpha"))
    on("beta", f"cat >{CERTIFICATE}", stdin=signed(20))
    try:
        fires(server, "RemusCertificateExpiring", instance="beta")
        says("beta", "remusctl agent", r"\d{4}-\d\d-\d\d")
        on("beta", f"echo nonsense >{CERTIFICATE}")
        fires(server, "RemusCertificateUnusable", instance="beta")
        says("beta", "remusctl agent", re.escape(CERTIFICATE))
    finally:
        play(BOTH_INVENTORIES, "playbooks/site.yml", "--tags", "remus_pki")
    end(server, "RemusCertificateExpiring", "RemusCertificateUnusable")
    assert agent.session(agent.status("alpha")) == session


def test_a_witness_that_is_gone(server: Prometheus, protected: None) -> None:
    """RemusWitnessUnreachable, of both hosts; RemusGuestProblem, of a session that the record cannot be asked about."""
    on(WITNESS, "systemctl stop etcd.service")
    try:
        for host in HOSTS:
            fires(server, "RemusWitnessUnreachable", instance=host)
        with pytest.raises(CommandFailed, match="cannot use the witness"):
            play(BOTH_INVENTORIES, "playbooks/preflight.yml", "-e", "remus_preflight_agents=required")
        says(WITNESS, "systemctl status --no-pager etcd", "inactive")
        assert on("alpha", f"remusctl switchover {GUEST} --yes >&2; echo $?", timeout=300).strip() == "19", "called off"
        fires(server, "RemusGuestProblem", instance="alpha", domain=GUEST)
        says("alpha", f"remusctl status {GUEST}", "reason.*cannot take over by itself yet")
    finally:
        on(WITNESS, "systemctl start etcd.service", timeout=180)
    end(server, "RemusWitnessUnreachable", "RemusGuestProblem")


def test_a_backup_without_memory(server: Prometheus, protected: None) -> None:
    """RemusBackupMemoryLow."""
    name = "filler"
    free = int(on("beta", "xl info free_memory"))
    says("beta", "xl info", r"free_memory +: \d+")
    configuration = on("beta", f"cat /etc/xen/{GUEST}-pvh.cfg")
    lines = [
        line
        for line in configuration.splitlines()
        if line.split("=")[0].strip() not in ("name", "memory", "maxmem", "vif", "uuid")
    ]
    lines += [f'name = "{name}"', f"memory = {free - 40}"]
    on("beta", f"cat >/run/{name}.cfg", stdin="\n".join(lines) + "\n")
    try:
        on("beta", f"xl create -p -q /run/{name}.cfg", timeout=180)
        fires(server, "RemusBackupMemoryLow", instance="beta")
        says("beta", "xl list", name)
    finally:
        on("beta", f"xl destroy {name}; rm -f /run/{name}.cfg", timeout=180)
    end(server, "RemusBackupMemoryLow")


def test_a_watchdog_that_cannot_be_armed(server: Prometheus, protected: None) -> None:
    """RemusWatchdogProblem: both of dom0's are in use by others."""
    take = "import ctypes, glob, os; library = ctypes.CDLL(glob.glob('/usr/lib/*/libxenctrl.so.*')[0])\n"
    take += "library.xc_interface_open.restype = ctypes.c_void_p\n"
    take += "xen = ctypes.c_void_p(library.xc_interface_open(None, None, 0))\n"
    configuration, before = "/etc/remus/agent.toml", "/etc/remus/agent.toml.before-test"
    agent.ask("alpha", "unprotect", timeout=300, domain=GUEST, force=True)
    on("alpha", f"cp -a {configuration} {before} && printf '\\n[watchdog]\\nseconds = 180\\n' >> {configuration}")
    numbers: list[str] = []
    try:
        taking = take + "print(library.xc_watchdog(xen, 0, 3600), library.xc_watchdog(xen, 0, 3600))"
        numbers = on("alpha", "python3 -", stdin=taking).split()
        assert set(numbers) == {"1", "2"}
        faults.restart("alpha")
        with contextlib.suppress(agent.AgentError):
            agent.ask("alpha", "protect", timeout=SEED_TIMEOUT, domain=GUEST, peer="beta", wait=False)
        fires(server, "RemusWatchdogProblem", instance="alpha")
        says("alpha", "remusctl agent", "watchdog.*both are in use")
    finally:
        for number in numbers:
            on("alpha", "python3 -", stdin=f"{take}print(library.xc_watchdog(xen, {number}, 0))")
        on("alpha", f"mv {before} {configuration}")
        faults.restart("alpha")
    end(server, "RemusWatchdogProblem")


def test_nobody_runs_the_guest(server: Prometheus, protected: None) -> None:
    """RemusGuestWithoutOwner: the host dies while the witness is away."""
    on(WITNESS, "systemctl stop etcd.service")
    try:
        die("alpha")
        fires(server, "RemusGuestWithoutOwner", domain=GUEST)
        fires(server, "RemusAgentDown", instance="alpha")
        says("beta", f"remusctl status {GUEST}", "orphaned")
    finally:
        on(WITNESS, "systemctl start etcd.service", timeout=180)
    runs_on("beta")
    end(server, "RemusGuestWithoutOwner")
    heal_links()
    on("alpha", "systemctl start remus-agent.service", timeout=180)
    wait_protected(host="beta")
    end(server, "RemusAgentDown")


def test_an_owner_that_has_not_heard_of_it(server: Prometheus, protected: None) -> None:
    """RemusTwoOwners, RemusGuestStoodDown."""
    for words in INCIDENTS["partition"]["owner-alone"].begin("alpha", "beta"):
        labctl(*words)
    fires(server, "RemusTwoOwners", domain=GUEST)
    fires(server, "RemusGuestSilent", instance="alpha", domain=GUEST)
    says("alpha", f"remusctl status {GUEST}", "silent")
    generations = {host: agent.status(host)["generation"] for host in HOSTS}
    assert generations["beta"] > generations["alpha"]
    labctl("heal", "guests")
    fires(server, "RemusGuestStoodDown", instance="alpha", domain=GUEST)
    end(server, "RemusTwoOwners")
    says("alpha", f"remusctl status {GUEST}", "stood-down")
    heal_links()
    wait_protected(host="beta")
    end(server, "RemusGuestStoodDown")


def test_a_switchover_that_nobody_answers(server: Prometheus, protected: None) -> None:
    """RemusGuestPaused: the new host asks the witness, and before that answers the old one hears of neither any more."""
    on(WITNESS, "systemctl kill --signal=STOP etcd.service")  # stopped, it would be known at once that nobody answers
    try:
        on("alpha", f"systemd-run --quiet --collect remusctl switchover {GUEST} --yes")
        until(
            "it is handed over",
            lambda: agent.status("alpha")["state"],
            lambda state: state == "handed-over",
            timeout=AUTOMATIC,
        )
        labctl("cut", "replication")
        fires(server, "RemusGuestPaused", instance="alpha", domain=GUEST)
        says("alpha", f"remusctl status {GUEST}", "in-doubt")
        assert [copy for copy in copies("beta") if copy.runs] == [], "it does not run there"
    finally:
        on(WITNESS, "systemctl kill --signal=CONT etcd.service")
        heal_links()
    end(server, "RemusGuestPaused")
    (copy,) = until(
        "it runs on one host", running_copies, lambda found: len(found) == 1, timeout=AUTOMATIC, passing=NOT_YET
    )
    wait_protected(host=copy.host)


@contextlib.contextmanager
def halting(host: str) -> Iterator[None]:
    """Its agent goes on for a second of nine."""
    pid = faults.main_pid(host)
    cycle = f"kill -STOP {pid}; sleep 8; kill -CONT {pid}; sleep 1"
    unit = "remus-test-halting"
    on(host, f"systemd-run --quiet --collect --unit={unit} sh -c 'while :; do {cycle}; done'")
    try:
        yield
    finally:
        on(host, f"systemctl stop {unit}; kill -CONT {pid}")


def test_a_backup_that_is_slow(server: Prometheus, protected: None) -> None:
    """RemusAckLate, RemusEpochsSlow: the dashboard says where the time goes."""
    with halting("beta"):
        fires(server, "RemusAckLate", instance="alpha", domain=GUEST)
        fires(server, "RemusEpochsSlow", instance="alpha", domain=GUEST)
        spent = {
            phase: server.value(f'sum(rate(remus_epoch_phase_seconds_sum{{phase="{phase}"}}[60s]))')
            for phase in ("freeze", "copy", "send", "ack")
        }
        assert max(spent, key=lambda phase: spent[phase]) == "ack", spent
    end(server, "RemusAckLate", "RemusEpochsSlow")


def test_a_host_that_is_busy(server: Prometheus, protected: None) -> None:
    """RemusPauseLong: dom0 has a fifth of a processor, and others that want it."""
    unit, cap = "remus-test-busy", "xl sched-credit2 -d 0 -c"
    loops = "for i in 1 2 3 4 5 6; do while :; do :; done & done; wait"
    on("alpha", f"systemd-run --quiet --collect --unit={unit} --property=RuntimeMaxSec=900 sh -c '{loops}'")
    try:
        on("alpha", f"{cap} {DOM0_SHARE}")
        fires(server, "RemusPauseLong", instance="alpha", domain=GUEST)
    finally:
        on("alpha", f"{cap} 0; systemctl stop {unit}", timeout=600)
    wait_protected()
    end(server, "RemusPauseLong")


def test_more_output_than_may_be_held(server: Prometheus, protected: None) -> None:
    """RemusOutputNearLimit, RemusOutputDropped: a larger limit ends them."""
    protect_again(output_limit_bytes=LEAST_LIMIT)
    run(redis.command("-x", "set", "flood"), stdin="x" * ANSWER_BYTES)
    words = redis.command("-r", "1000000", "get", "flood", seconds=1200)
    clients = [subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(FLOODS)]
    try:
        fires(server, "RemusOutputNearLimit", instance="alpha", domain=GUEST)
        fires(server, "RemusOutputDropped", instance="alpha", domain=GUEST)
        says("alpha", f"remusctl status {GUEST}", "protected")
    finally:
        for client in clients:
            client.kill()
            client.wait()
    protect_again()
    end(server, "RemusOutputNearLimit", "RemusOutputDropped")


def test_a_first_copy_that_does_not_get_on(server: Prometheus, protected: None) -> None:
    """RemusResyncStuck: the session ends by itself when it is the link, and begins anew."""
    agent.ask("alpha", "unprotect", timeout=300, domain=GUEST, force=True)
    agent.ask("alpha", "protect", timeout=SEED_TIMEOUT, domain=GUEST, peer="beta", wait=False)
    until(
        "it is seeding",
        lambda: agent.status("alpha")["state"],
        lambda state: state == "seeding",
        timeout=120,
        every=0.1,
    )
    with cut():
        fires(server, "RemusResyncStuck", domain=GUEST)
        says("alpha", f"remusctl status {GUEST}", "seeding")
    wait_protected()
    end(server, "RemusResyncStuck")


def test_a_disk_that_has_failed(server: Prometheus, protected: None) -> None:
    """RemusDiskFailed: its host is switched off, the other one goes on with the only good copy."""
    come_home(configuration=WITH_DISK)
    protect()
    take_away("alpha")
    fires(server, "RemusDiskFailed", instance="alpha", domain=GUEST)
    says("alpha", f"remusctl status {GUEST}", "xvda.*has failed")
    labctl("kill", "alpha")
    try:
        runs_on("beta")
    finally:
        labctl("start", "alpha")
    until("alpha's agent answers", lambda: agent.answers("alpha"), timeout=600, passing=NOT_YET)
    wait_protected(host="beta")
