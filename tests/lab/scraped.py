"""A Prometheus of this machine that scrapes the agents of the lab's pair, by what the role remus_monitoring renders."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml
from pair.hosts import HOSTS, PROJECT, ssh_config
from pair.wait import until
from prometheus_server import RULES, Prometheus, configuration, prometheus
from prometheus_tools import promtool

from tests.etcd_server import free_ports

HTTP_PORT = 7791
INTERVAL = 5
"""Seconds between two scrapes. A scrape has no longer than that, and an emulated host makes its page in more than one second."""
WINDOW = 60
"""Seconds that rates are taken over, in place of Grafana's own."""


def _address(host: str) -> str:
    """Where the host's agent serves metrics, in the lab's own network."""
    inventory = yaml.safe_load((PROJECT / "inventories/lab/hosts.yml").read_text())
    found: str = inventory["all"]["children"]["xen_hosts"]["hosts"][host]["remus_monitoring_address"]
    return found


@contextlib.contextmanager
def _tunnel(host: str) -> Iterator[str]:
    """An address of this machine that leads there: the lab's network is a namespace. Nobody is asked for a certificate."""
    (port,) = free_ports(1)
    words = ["ssh", "-F", str(ssh_config()), "-N", "-L", f"127.0.0.1:{port}:{_address(host)}:{HTTP_PORT}"]
    # A connection of its own: one that is shared would keep the port when this process has ended.
    words += ["-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes", host]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as process:
        try:
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()


@contextlib.contextmanager
def scraping(folder: Path, rules: Path = RULES) -> Iterator[Prometheus]:
    """One that has scraped both agents several times, with these rules; until the end of the block."""
    with contextlib.ExitStack() as stack:
        targets = {host: stack.enter_context(_tunnel(host)) for host in HOSTS}
        path = configuration(folder, targets, INTERVAL, rules)
        assert "SUCCESS" in promtool("check", "config", str(path))
        server = stack.enter_context(prometheus(folder, path, f"{WINDOW}s"))

        def at_least(wanted: int, query: str, what: str) -> None:
            until(what, lambda: server.value(query), lambda seen: seen >= wanted, timeout=120)

        at_least(len(HOSTS), "count(remus_build_info)", "both agents are scraped")
        at_least(4, f"min(count_over_time(remus_build_info[{WINDOW}s]))", "each several times")
        yield server
