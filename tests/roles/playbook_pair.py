"""Two fake agents on this machine, for playbooks that ask them about web1."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.modules.conftest import ROOT, ScriptedAgent, serve
from tests.modules.test_protection import status
from tests.roles.local_play import ansible_playbook

UNPROTECTED = status("none", "unprotected", None, generation=0, committed_epoch=0)
NOT_FOUND = {"error": {"code": "domain-not-found", "message": "no domain web1"}}


@dataclass
class Pair:
    """Two fake agents, what they say about web1, and the folder that inventory and results are in."""

    folder: Path
    agents: dict[str, ScriptedAgent]
    said: dict[str, dict[str, Any]]
    facts: dict[str, dict[str, Any]]

    def play(self, name: str, *extra: str, fails: bool = False) -> str:
        """Run a playbook; return what it printed."""
        hosts = {host: self.facts[host] for host in self.agents}
        inventory = {
            "all": {
                "vars": {
                    "ansible_python_interpreter": sys.executable,
                    "remus_results_dir": str(self.folder / "results"),
                    "remus_guests": [
                        {
                            "name": "web1",
                            "hosts": ["alpha", "beta"],
                            "disks": [{"vdev": "xvda", "device": "/dev/vg0/web1"}],
                        }
                    ],
                },
                "children": {"remus_hosts": {"hosts": hosts}},
            }
        }
        code, text = ansible_playbook(
            self.folder,
            inventory,
            ROOT / "playbooks" / f"{name}.yml",
            *("-e", "remus_preflight_hosts=all:!all", *extra),
            ANSIBLE_CALLBACK_RESULT_FORMAT="json",
        )
        assert (code != 0) is fails, text
        return text

    def results(self) -> list[dict[str, Any]]:
        """Records that runs left, oldest first."""
        return [json.loads(path.read_text()) for path in sorted((self.folder / "results").glob("*.json"))]

    def kill(self, host: str) -> None:
        """Nothing answers there any more, not even ssh."""
        self.facts[host] |= {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}

    @property
    def mutating(self) -> list[tuple[str, str]]:
        """(host, method) of every request that changes something."""
        return [(host, method) for host, agent in self.agents.items() for method in agent.mutating]


def answers(pair: Pair, host: str) -> dict[str, Any]:
    """A small honest agent: protect, unprotect and failover change what both say."""
    peer = {"alpha": "beta", "beta": "alpha"}[host]

    def listing(_: dict[str, Any]) -> dict[str, Any]:
        return {"domains": [] if "error" in pair.said[host] else [pair.said[host]]}

    def protect(params: dict[str, Any]) -> dict[str, Any]:
        assert params["peer"] == peer
        pair.said[host] = status(peer=peer)
        pair.said[peer] = status("backup", "receiving", host)
        return pair.said[host]

    def unprotect(params: dict[str, Any]) -> dict[str, Any]:
        if pair.said[host]["role"] == "backup":
            assert params["force"]
            pair.said[host] = status("none", "discarded", peer)
        else:
            pair.said[host] = UNPROTECTED
            pair.said[peer] = NOT_FOUND
        return pair.said[host]

    def failover(params: dict[str, Any]) -> dict[str, Any]:
        if params.get("dry_run"):
            return {"domain": "web1", "changed": False}
        pair.said[host] = status("primary", "active", peer, generation=4, proof=params["fenced"])
        return pair.said[host]

    def switchover(params: dict[str, Any]) -> dict[str, Any]:
        if not params.get("dry_run"):
            pair.said[host] = NOT_FOUND
            pair.said[peer] = status("primary", "active", host, generation=4)
        return {"domain": "web1", "to": peer, "status": status("none", "handed-over", peer)}

    return {
        "agent": {"host": host, "version": "0.1.0", "xen_version": "4.20", "peers": {}},
        "list": listing,
        "status": lambda _: pair.said[host],
        "probe": {"ok": True, "reasons": [], "facts": {}},
        "protect": protect,
        "unprotect": unprotect,
        "failover": failover,
        "switchover": switchover,
    }


@contextlib.contextmanager
def two_agents(folder: Path) -> Iterator[Pair]:
    """Guest web1 runs on alpha, unprotected. folder: for their sockets, so its path is short."""
    made = Pair(folder, {}, {"alpha": UNPROTECTED, "beta": NOT_FOUND}, {})
    listeners = []
    for number, host in enumerate(("alpha", "beta")):
        run = folder / host
        run.mkdir()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(run / "agent.sock"))
        listener.listen(4)
        listeners.append(listener)
        made.agents[host] = ScriptedAgent(str(run / "agent.sock"))
        made.agents[host].answers = answers(made, host)
        made.facts[host] = {
            "ansible_connection": "local",
            "remus_agent_run_dir": str(run),
            "remus_replication_address": f"192.0.2.{number + 1}",
            "remus_fence_status_command": "echo on",
        }
        threading.Thread(target=serve, args=(made.agents[host], listener), daemon=True).start()
    try:
        yield made
    finally:
        for listener in listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
