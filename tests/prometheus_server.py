"""A real Prometheus that scrapes agents by what the role remus_monitoring renders, and is asked what dashboard and rules ask."""

from __future__ import annotations

import contextlib
import json
import math
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml
from prometheus_tools import find

from tests.etcd_server import free_ports

ROOT = Path(__file__).resolve().parents[1]
ROLE = ROOT / "roles/remus_monitoring"
RULES = ROLE / "files/remus.rules.yml"
DASHBOARD = json.loads((ROLE / "files/remus-dashboard.json").read_text())
DOCUMENTED = re.findall(r"^```\n(rate\(.*?)^```", (ROOT / "docs/operations.md").read_text(), re.MULTILINE | re.DOTALL)
"""Queries that a reader may copy."""
Place = tuple[str, str]
"""A panel's title and a query's refId; of a recording rule its name, twice."""


def rules() -> list[dict[str, Any]]:
    """All of them, as the role has them."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def configuration(folder: Path, targets: Mapping[str, str], interval: int, rules_file: Path = RULES) -> Path:
    """prometheus.yml with what the role renders. targets: address and port by the host's name. interval: seconds between two
    scrapes, and the most that one may take. rules_file: in place of the role's."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(ROLE / "templates"), undefined=jinja2.StrictUndefined,
                                     autoescape=False)  # noqa: S701  YAML, not HTML  # fmt: skip
    environment.filters["to_json"] = json.dumps
    text = environment.get_template("scrape.yml.j2").render(
        remus_monitoring_dir=str(folder), remus_monitoring_scrape_interval=f"{interval}s"
    )
    groups = [{"targets": [target], "labels": {"instance": name}} for name, target in targets.items()]
    (folder / "targets.json").write_text(json.dumps(groups))
    path = folder / "prometheus.yml"
    settings = {
        "global": {"evaluation_interval": "1s"},
        "rule_files": [str(rules_file)],
        **yaml.safe_load(text),
    }
    path.write_text(yaml.safe_dump(settings))
    return path


class Prometheus:
    """One that runs. window: what stands for `$__rate_interval`. Its methods block."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path, window: str) -> None:
        self._process = process
        self._url = f"http://127.0.0.1:{port}/api/v1/"
        self._log = log
        self._window = window

    @property
    def log(self) -> str:
        """What it has said so far; warnings and worse."""
        return self._log.read_text()

    def get(self, path: str, **query: str) -> Any:
        """The data of an answer. Raises AssertionError with what it says of an error."""
        url = self._url + path + "?" + urllib.parse.urlencode(query)
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - it begins with http:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from error

    def value(self, query: str) -> float:
        """Of a query with one result; 0 where there is none, or Prometheus does not answer yet. Raises AssertionError when it has
        ended."""
        assert self._process.poll() is None, self.log
        try:
            found = self.get("query", query=query)["result"]
        except (OSError, AssertionError):
            return 0
        return float(found[0]["value"][1]) if found else 0

    def panels(self) -> dict[Place, list[float]]:
        """What each query of the dashboard shows now, with every host and guest chosen. Raises AssertionError for one that is
        wrong, also over a while."""
        found = {}
        for panel in DASHBOARD["panels"]:
            for target in panel.get("targets", []):
                query = self._chosen(target["expr"])
                now = self.value("vector(time())")
                self.get("query_range", query=query, start=str(now - 10), end=str(now), step="1")
                found[panel["title"], target["refId"]] = self._values(query)
        return found

    def recorded(self) -> dict[Place, list[float]]:
        """What each recording rule says now."""
        return {(name, name): self._values(name) for rule in rules() for name in [rule.get("record")] if name}

    def wrong(self) -> list[str]:
        """What is wrong with the variables of the dashboard, its annotations, the queries of the documents, and the rules; those
        are evaluated once more. Raises AssertionError for a query that is."""
        assert DOCUMENTED
        wrong = [f"no answer to {query}" for query in DOCUMENTED if not self._values(query)]
        for variable in DASHBOARD["templating"]["list"]:
            if variable["type"] == "query":
                selector, label = variable["query"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
                found = self.get(f"label/{label}/values", **{"match[]": self._chosen(selector)})
                if not found:
                    wrong.append(f"variable {variable['name']} has no value")
        for annotation in DASHBOARD["annotations"]["list"]:
            if "expr" in annotation:
                self._values(self._chosen(annotation["expr"]))
        for rule in rules():
            self._values(rule["expr"])
        loaded = self.loaded()
        if len(loaded) != len(rules()):
            wrong.append(f"{len(loaded)} rules are loaded")
        return wrong + [f"{rule['name']}: {rule.get('lastError')}" for rule in loaded if rule["health"] != "ok"]

    def firing(self) -> list[dict[str, str]]:
        """The labels of every alert that fires now."""
        return [alert["labels"] for alert in self.get("alerts")["alerts"] if alert["state"] == "firing"]

    def loaded(self) -> list[dict[str, Any]]:
        """The rules, as it tells of them."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def _values(self, query: str) -> list[float]:
        return [float(each["value"][1]) for each in self.get("query", query=query)["result"]]

    def _chosen(self, query: str) -> str:
        """As Grafana sends it."""
        for name, value in (("$__rate_interval", self._window), ("$instance", ".*"), ("$domain", ".*")):
            query = query.replace(name, value)
        assert "$" not in query
        return query


def without_a_number(found: Mapping[Place, list[float]]) -> set[Place]:
    """Where nothing is shown: no series, or none with a number."""
    return {place for place, values in found.items() if all(math.isnan(value) for value in values)}


@contextlib.contextmanager
def prometheus(folder: Path, path: Path, window: str) -> Iterator[Prometheus]:
    """Run one until the end of the block, with this configuration and its data in a folder. window: as `Prometheus` says."""
    (port,) = free_ports(1)
    command = [
        str(find("prometheus")), f"--config.file={path}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Prometheus(process, port, folder / "log", window)
        finally:
            process.kill()
