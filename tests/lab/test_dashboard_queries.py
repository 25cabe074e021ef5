"""A real Prometheus scrapes the agents of the lab's pair, by what the role remus_monitoring renders, while a guest is protected
and its clients write; every query of the dashboard and every rule is asked of it.

Takes the guest to alpha, protected to beta, and leaves it there.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pair import agent
from pair.hosts import GUEST, HOSTS, PROJECT, ssh_config
from pair.load import load
from pair.protection import ensure_protected
from pair.wait import until
from prometheus_server import Place, Prometheus, configuration, prometheus, without_a_number
from prometheus_tools import promtool

from tests.etcd_server import free_ports

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(3600)]

HTTP_PORT = 7791
INTERVAL = 5
"""Seconds between two scrapes. A scrape has no longer than that, and an emulated host makes its page in more than one second."""
WINDOW = 60
"""Seconds that rates are taken over, in place of Grafana's own."""
MAY_BE_EMPTY: set[Place] = {
    ("Every witness is reached", "A"),
    ("Certificate that ends first", "A"),
    ("What a host needs", "B"),
    ("What a host needs", "C"),
    ("What a host needs", "D"),
    ("Alerts that fire", "A"),
    ("Full copy at the start of a session", "A"),
    ("What the full copy takes yet", "A"),
}
"""A pair may be without a witness, TLS and a watchdog; alerts fire where something is wrong, and a full copy is over by then."""


@pytest.fixture(scope="module", autouse=True)
def _lab(lab: dict[str, Any]) -> None:
    """Skips with the lab's own reason when there is none."""


@pytest.fixture
def protected() -> agent.Status:
    """The guest on alpha, protected."""
    return ensure_protected()


def address(host: str) -> str:
    """Where the host's agent serves metrics, in the lab's own network."""
    inventory = yaml.safe_load((PROJECT / "inventories/lab/hosts.yml").read_text())
    found: str = inventory["all"]["children"]["xen_hosts"]["hosts"][host]["remus_monitoring_address"]
    return found


@contextlib.contextmanager
def tunnel(host: str) -> Iterator[str]:
    """An address of this machine that leads there: the lab's network is a namespace. Nobody is asked for a certificate."""
    (port,) = free_ports(1)
    words = ["ssh", "-F", str(ssh_config()), "-N", "-L", f"127.0.0.1:{port}:{address(host)}:{HTTP_PORT}"]
    # A connection of its own: one that is shared would keep the port when this process has ended.
    words += ["-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes", host]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as process:
        try:
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()


def missing(server: Prometheus) -> set[Place]:
    """Queries that show nothing although they have to."""
    return without_a_number({**server.panels(), **server.recorded()}) - MAY_BE_EMPTY


def test_the_dashboard_and_the_rules_on_a_protected_guest(protected: agent.Status, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        targets = {host: stack.enter_context(tunnel(host)) for host in HOSTS}
        path = configuration(tmp_path, targets, INTERVAL)
        assert "SUCCESS" in promtool("check", "config", str(path))
        stack.enter_context(load(tmp_path / "history.jsonl"))
        server = stack.enter_context(prometheus(tmp_path, path, f"{WINDOW}s"))
        for what, query, wanted in (
            ("both agents are scraped", "count(remus_build_info)", len(HOSTS)),
            ("each several times", f"min(count_over_time(remus_build_info[{WINDOW}s]))", 4),
            ("alpha protects the guest", f'remus_domain_protected{{instance="alpha", domain="{GUEST}"}}', 1),
        ):
            until(
                what, lambda query=query: server.value(query), lambda seen, wanted=wanted: seen >= wanted, timeout=120
            )
        until("every query shows something", lambda: missing(server), lambda found: not found, timeout=120, every=2)
        assert server.wrong() == []
        firing = [rule for rule in server.loaded() if rule.get("state") == "firing"]
        assert [rule["name"] for rule in firing if rule["labels"]["severity"] == "critical"] == []
        assert "level=error" not in server.log
