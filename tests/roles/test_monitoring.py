"""The role remus_monitoring on this machine: what it places, that a second run changes nothing, and what it refuses."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml
from prometheus_tools import find, promtool

from tests.modules.conftest import ROOT
from tests.roles.local_play import run_play

pytestmark = [pytest.mark.playbooks, pytest.mark.timeout(900)]


class Agent(http.server.BaseHTTPRequestHandler):
    """Answers as the agent of xen1 does."""

    def do_GET(self) -> None:
        body = json.dumps({"host": "xen1", "ok": True}).encode()
        self.send_response(200 if self.path == "/liveness" else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nobody reads it."""


@contextmanager
def agent() -> Iterator[int]:
    """Its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Agent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def play(folder: Path, *options: str, fails: bool = False, hosts: dict[str, Any] | None = None, **facts: Any) -> str:
    """Run the role on metrics1. hosts: the group remus_hosts."""
    variables = {
        "remus_monitoring_dir": str(folder / "prometheus"),
        "remus_monitoring_service": "",
        "remus_monitoring_promtool": str(find("promtool")),
        **facts,
    }
    inventory = {
        "children": {
            "remus_monitors": {"hosts": {"metrics1": variables}},
            "remus_hosts": {"hosts": hosts or {}},
        }
    }
    role = {"hosts": "remus_monitors", "roles": ["remus_monitoring"]}
    code, text = run_play(folder, inventory, role, *options)
    assert (code != 0) is fails, text
    return text


def test_it_places_what_prometheus_and_grafana_read(tmp_path: Path) -> None:
    target = tmp_path / "prometheus"
    with agent() as port:
        hosts = {"xen1": {"remus_monitoring_address": "127.0.0.1", "remus_agent_http_port": port}, "xen2": {}}
        url = "https://wiki.example.net/remus"
        facts = {"hosts": hosts, "remus_monitoring_runbook_url": url}
        assert "changed=0" not in play(tmp_path, "--check", "--diff", **facts)
        assert not target.exists()
        play(tmp_path, **facts)
        assert "changed=0" in play(tmp_path, **facts)
    assert sorted(path.name for path in target.iterdir()) == [
        ".told",
        "remus-dashboard.json",
        "remus.rules.yml",
        "scrape.yml",
        "targets.json",
    ]
    assert json.loads((target / "targets.json").read_text()) == [
        {"labels": {"instance": "xen1"}, "targets": [f"127.0.0.1:{port}"]}
    ]
    rules = (target / "remus.rules.yml").read_text()
    assert "docs/runbook.md#" not in rules
    assert f"runbook_url: {url}#remusagentdown\n" in rules
    promtool("check", "config", str(target / "scrape.yml"))
    scraped = yaml.safe_load((target / "scrape.yml").read_text())["scrape_configs"]
    assert [(job["job_name"], job["file_sd_configs"][0]["files"]) for job in scraped] == [
        ("remus", [str(target / "targets.json")])
    ]
    shipped = ROOT / "roles/remus_monitoring/files/remus-dashboard.json"
    assert (target / "remus-dashboard.json").read_text() == shipped.read_text()


def test_prometheus_and_grafana_may_read_what_root_alone_may_change(tmp_path: Path) -> None:
    """As other roles' hosts are looked at, on this one; whatever the umask of who ran the role."""
    prometheus, grafana = tmp_path / "prometheus", tmp_path / "grafana"
    before = os.umask(0o077)
    try:
        facts = {"remus_monitoring_verify_targets": False, "remus_monitoring_dashboard_dir": str(grafana)}
        play(tmp_path, remus_monitoring_targets={"xen1": "192.0.2.1:7791"}, **facts)
    finally:
        os.umask(before)
    host = testinfra.get_host("local://")
    files = [prometheus / name for name in ("remus.rules.yml", "targets.json", "scrape.yml", ".told")]
    for path in [prometheus, grafana, *files, grafana / "remus-dashboard.json"]:
        file = host.file(str(path))
        assert (file.user, file.group) == ("root", "root"), path
        assert (file.is_directory, file.mode) == ((True, 0o755) if path in (prometheus, grafana) else (False, 0o644)), (
            path
        )


def test_a_run_that_was_interrupted_before_the_reload_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, log = tmp_path / "bin" / "systemctl", tmp_path / "log"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    def systemd(works: bool) -> None:
        fails = "" if works else "case $1 in reload) exit 1;; esac\n"
        shown = "echo LoadState=loaded; echo ActiveState=active; echo UnitFileState=enabled"
        program.write_text(f'#!/bin/sh\necho "$1" >>{log}\n{fails}case $1 in show) {shown};; esac\n')
        program.chmod(0o755)

    def reloads(*options: str, fails: bool = False) -> int:
        log.write_text("")
        facts = {"remus_monitoring_service": "prometheus", "remus_monitoring_verify_targets": False}
        play(tmp_path, *options, fails=fails, remus_monitoring_targets={"xen1": "192.0.2.1:7791"}, **facts)
        return log.read_text().split().count("reload")

    systemd(works=False)
    assert reloads(fails=True) == 1
    systemd(works=True)
    assert reloads("--check") == 0
    assert reloads() == 1
    assert reloads() == 0


def test_every_reason_against_it_is_named_at_once(tmp_path: Path) -> None:
    text = play(
        tmp_path,
        fails=True,
        remus_monitoring_service="no-such-unit",
        remus_monitoring_promtool="/nowhere/promtool",
        remus_monitoring_dir="prometheus",
        remus_monitoring_targets={"xen1": "xen1:7791"},
    )
    for number, reason in enumerate(
        ("which is not address:port", "absolute paths", "/nowhere/promtool", "no-such-unit"), 1
    ):
        assert f"{number}." in text
        assert reason in text
    assert not (tmp_path / "prometheus").exists()
    assert "no host of the group remus_hosts serves metrics" in play(tmp_path, fails=True)


def test_an_agent_that_is_not_the_one_is_named(tmp_path: Path) -> None:
    with agent() as port:
        targets = {"xen1": f"127.0.0.1:{port}", "xen2": f"127.0.0.1:{port}", "xen3": "127.0.0.1:1"}
        text = play(tmp_path, fails=True, remus_monitoring_targets=targets)
    assert f"xen2 at 127.0.0.1:{port}: " in text
    assert "xen3 at 127.0.0.1:1: " in text
    assert "xen1 at" not in text
