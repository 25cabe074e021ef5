"""A real Prometheus scrapes two real agents over simulated hosts, by what the role remus_monitoring renders; then every query of
the dashboard and of docs/operations.md, and every rule, is asked of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jinja2
import yaml
from deadline import until
from prometheus_tools import SECONDS, find, promtool

from remus_agent.adapters.http.server import HttpServer
from remus_agent.adapters.sim.local import LoopClock
from remus_agent.adapters.sim.witness import SimWitness
from remus_agent.addresses import Address
from remus_agent.cost_ports import Cost
from remus_agent.observe.view import CertificateView
from remus_agent.services.monitoring import Monitoring, Probes
from remus_agent.services.witness_probe import WitnessProbe
from tests.etcd_server import free_ports
from tests.model.pair import Host, Pair, on

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles/remus_monitoring"
DASHBOARD = json.loads((ROLE / "files/remus-dashboard.json").read_text())
DOCUMENTED = re.findall(r"^```\n(rate\(.*?)^```", (ROOT / "docs/operations.md").read_text(), re.MULTILINE | re.DOTALL)
"""Queries that a reader may copy."""
NOTHING = {
    "Alerts that fire",
    "Full copy at the start of a session",
    "What the full copy takes yet",
}
"""Panels that show nothing on a pair without a fault, after its first copy."""
NO_WATCHDOG = {("What a host needs", "D")}
"""(panel, query) of what these hosts do not have."""


async def certificate() -> CertificateView:
    """Of both hosts."""
    return CertificateView(2.5e9, usable=True)


@contextlib.asynccontextmanager
async def endpoint(host: Host, witness: SimWitness) -> AsyncIterator[int]:
    """The HTTP endpoint of a host's agent; its port."""
    clock = LoopClock()
    probe = WitnessProbe(witness.of(host.name), clock)
    probe.start()
    probes = Probes(supervisor=lambda: True, certificate=certificate, witness=probe)
    server = HttpServer(Address("127.0.0.1", 0), Monitoring(on(host), host.xen, clock, probes).handlers())
    server.start()
    await until(lambda: server.port is not None)
    try:
        assert server.port is not None
        yield server.port
    finally:
        await server.close()
        await probe.close()


def configuration(folder: Path, targets: dict[str, int]) -> Path:
    """prometheus.yml with what the role renders, scraping every second."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(ROLE / "templates"), undefined=jinja2.StrictUndefined,
                                     autoescape=False)  # noqa: S701  YAML, not HTML  # fmt: skip
    environment.filters["to_json"] = json.dumps
    text = environment.get_template("scrape.yml.j2").render(
        remus_monitoring_dir=str(folder), remus_monitoring_scrape_interval="1s"
    )
    groups = [{"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}} for name, port in targets.items()]
    (folder / "targets.json").write_text(json.dumps(groups))
    path = folder / "prometheus.yml"
    settings = {
        "global": {"evaluation_interval": "1s"},
        "rule_files": [str(ROLE / "files/remus.rules.yml")],
        **yaml.safe_load(text),
    }
    path.write_text(yaml.safe_dump(settings))
    return path


class Prometheus:
    """One that runs. Its methods block."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self._url = f"http://127.0.0.1:{port}/api/v1/"

    def get(self, path: str, **query: str) -> Any:
        """The data of an answer. Raises AssertionError with what it says of an error."""
        url = self._url + path + "?" + urllib.parse.urlencode(query)
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - it begins with http:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from error

    def value(self, query: str) -> float:
        """Of a query with one result; 0 where there is none, or Prometheus does not answer yet."""
        try:
            found = self.get("query", query=query)["result"]
        except (OSError, AssertionError):
            return 0
        return float(found[0]["value"][1]) if found else 0


@contextlib.contextmanager
def prometheus(folder: Path, path: Path) -> Iterator[Prometheus]:
    """Run one until the end of the block."""
    (port,) = free_ports(1)
    command = [
        str(find("prometheus")), f"--config.file={path}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Prometheus(process, port)
        finally:
            process.kill()


def chosen(query: str) -> str:
    """As Grafana sends it, with every host and guest chosen."""
    for name, value in (("$__rate_interval", "20s"), ("$instance", ".*"), ("$domain", ".*")):
        query = query.replace(name, value)
    assert "$" not in query
    return query


def ask_everything(server: Prometheus) -> list[str]:
    """What is wrong with the dashboard's queries and the rules."""
    wrong = []
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            query = chosen(target["expr"])
            now = server.value("vector(time())")
            server.get("query_range", query=query, start=str(now - 10), end=str(now), step="1")
            found = server.get("query", query=query)["result"]
            place = (panel["title"], target["refId"])
            if bool(found) is (panel["title"] in NOTHING or place in NO_WATCHDOG):
                wrong.append(f"{place}: {found}")
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = variable["query"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
            found = server.get(f"label/{label}/values", **{"match[]": chosen(selector)})
            if not found:
                wrong.append(f"variable {variable['name']} has no value")
    for annotation in DASHBOARD["annotations"]["list"]:
        if "expr" in annotation:
            server.get("query", query=chosen(annotation["expr"]))
    assert len(DOCUMENTED) == 1
    wrong += [f"no answer to {query}" for query in DOCUMENTED if not server.get("query", query=query)["result"]]
    groups = server.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    wrong += [f"{rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] != "ok"]
    wrong += [f"{rule['name']} fires" for rule in rules if rule.get("state") == "firing"]
    return wrong


async def test_the_dashboard_and_the_rules_on_what_agents_serve(tmp_path: Path) -> None:
    pair, witness = Pair(disks=("xvda",)), SimWitness()
    async with contextlib.AsyncExitStack() as stack:
        ports = {
            host.name: await stack.enter_async_context(endpoint(host, witness)) for host in (pair.alpha, pair.beta)
        }
        path = configuration(tmp_path, ports)
        assert "SUCCESS" in await asyncio.to_thread(promtool, "check", "config", str(path))
        await pair.protect()
        pair.alpha.costs.by_guest["web1"] = {"checkpoints": Cost(1.0, 8 << 20), "disks": Cost(0.5, 38 << 20)}
        server = stack.enter_context(prometheus(tmp_path, path))

        async def become(query: str) -> None:
            async with asyncio.timeout(SECONDS):
                while not await asyncio.to_thread(server.value, query):
                    assert server.process.poll() is None, (tmp_path / "log").read_text()
                    pair.guest.write(1, b"changed")
                    await asyncio.sleep(0.1)

        await become("count(count_over_time(remus_build_info[1m]) >= 5) == 2")
        await become("count(instance_domain:remus_epoch_down_seconds:p99_5m >= 0)")
        wrong = await asyncio.to_thread(ask_everything, server)
        log = (tmp_path / "log").read_text()
        for host in (pair.alpha, pair.beta):
            await on(host).close()
    assert wrong == []
    assert "level=error" not in log
