"""Modules that only read: remus_protection_info, remus_topology, xen_host_info."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from tests.modules.conftest import RunModule, ScriptedAgent, load
from tests.modules.test_protection import UNKNOWN, status

AGENT = {"host": "alpha", "version": "0.1.0", "xen_version": "4.20", "peers": {"beta": {"address": "192.0.2.2:7789"}}}


def test_info_of_one(agent: ScriptedAgent, run_module: RunModule) -> None:
    agent.answers = {"agent": AGENT, "status": status(), "events": {"events": [{"id": 1}]}}
    result = run_module("remus_protection_info", name="web1", events=5, socket=agent.path)
    assert result == {"changed": False, "agent": AGENT, "unread": [], "domains": [status()], "events": [{"id": 1}]}
    assert agent.mutating == []


def test_info_of_an_unknown_guest_is_empty(agent: ScriptedAgent, run_module: RunModule) -> None:
    agent.answers = {"agent": AGENT, "status": UNKNOWN}
    assert run_module("remus_protection_info", name="web1", socket=agent.path)["domains"] == []


def test_info_of_all(agent: ScriptedAgent, run_module: RunModule) -> None:
    agent.answers = {"agent": AGENT, "list": {"domains": [status()]}}
    assert run_module("remus_protection_info", socket=agent.path)["domains"] == [status()]


def test_what_was_written_since_the_agent_read_it_is_named(
    agent: ScriptedAgent, run_module: RunModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same, other, new, gone, shut = (tmp_path / name for name in ("same", "other", "new", "gone", "shut"))
    for path in (same, other, new, shut):
        path.write_text("now")
    now, before = (hashlib.sha256(text).hexdigest() for text in (b"now", b"before"))
    read = {str(same): now, str(other): before, str(new): None, str(gone): before, str(shut): before}
    agent.answers = {
        "agent": AGENT | {"configuration": read | {str(tmp_path / "never"): None}},
        "list": {"domains": []},
    }
    usual = Path.read_bytes

    def read_bytes(self: Path) -> bytes:
        if self == shut:
            raise PermissionError
        return usual(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    unread = run_module("remus_protection_info", socket=agent.path)["unread"]
    assert unread == sorted(map(str, (other, new, gone))), "of a file that may not be read nobody can tell"


def test_info_waits_no_longer_than_told(run_module: RunModule, tmp_path: Any) -> None:
    result = run_module("remus_protection_info", wait=True, timeout=1, socket=str(tmp_path / "none.sock"))
    assert result["error"]["code"] == "agent-unavailable"


RUNS = [{"name": "web1", "id": 3, "paused": False}]


def host(
    domains: list[Any] | None = None,
    running: list[Any] | None = None,
    toolstack_error: str | None = None,
    agent_name: str = "",
    autostart: list[Any] | None = None,
    bridges: list[str] | None = None,
    **agent: Any,
) -> dict[str, Any]:
    """What a host said. agent: what its agent said of itself."""
    return {
        "agent_name": agent_name,
        "agent": {"agent": agent, "domains": domains or []},
        "toolstack": {
            "host": {
                "domains": running or [],
                "toolstack_error": toolstack_error,
                "autostart": autostart or [],
                **({} if bridges is None else {"bridges": bridges}),
            }
        },
    }


def silent(agent_name: str = "", **toolstack: Any) -> dict[str, Any]:
    """A host whose agent does not answer, as Ansible tells it."""
    return {"agent_name": agent_name, "agent": {"msg": "no route to host"}, "toolstack": toolstack}


GONE = silent(skipped=True)
AS_COPY = status("backup", "receiving", "alpha")
TAKEN = status("backup", "active", "alpha")


@pytest.mark.parametrize(
    ("alpha", "beta", "expected", "problem"),
    [
        (host(running=RUNS), host(), {"owner": "alpha", "other": "beta", "holder": None, "replicating": False}, ""),
        (host(), host(running=RUNS), {"owner": "beta", "other": "alpha"}, ""),
        (host([status()], RUNS), host([AS_COPY]), {"owner": "alpha", "holder": "beta", "protected": True}, ""),
        (host([status()], RUNS), host([AS_COPY], RUNS), {"owner": "alpha", "holder": "beta"}, ""),
        (
            host([status(state="silent")], RUNS),
            GONE,
            {"owner": "alpha", "protected": False, "replicating": True},
            "no route",
        ),
        (
            GONE,
            host([status("backup", "orphaned", "alpha")]),
            {"owner": None, "holder": "beta"},
            "alpha does not answer",
        ),
        (GONE, host([TAKEN], RUNS), {"owner": "beta", "taken_over": True, "holder": None}, "alpha does not answer"),
        (host(running=RUNS), host([TAKEN], RUNS), {"owner": None}, "claimed by alpha and beta"),
        (host(running=RUNS), host(running=RUNS), {"owner": None}, "claimed by alpha and beta"),
        (host(), host(), {"owner": None, "holder": None}, "runs on neither alpha nor beta"),
        (host(toolstack_error="no xenstore"), host(), {"owner": None, "holder": None}, "nobody knows whether web1 runs on alpha"),
        (host(toolstack_error="no xenstore"), host(running=RUNS), {"owner": "beta", "other": "alpha"}, ""),
        (host([status()], toolstack_error="no xenstore"), host([AS_COPY]), {"owner": "alpha", "holder": "beta"}, ""),
        (host() | {"toolstack": {"msg": "no xl"}}, host([AS_COPY]), {"owner": None, "unsure": {"alpha": "no xl"}}, "says: no xl"),
        (host() | {"toolstack": {}}, host([AS_COPY]), {"owner": None, "unsure": {"alpha": "it was not asked"}}, "not asked"),
        (silent(host={"domains": RUNS}), host(), {"owner": "alpha", "unsure": {}}, "alpha does not answer: no route"),
        ({}, host([AS_COPY]), {"owner": None, "holder": "beta", "unsure": {}}, "alpha does not answer: it was not asked"),
        (GONE, GONE, {"owner": None, "holder": None}, "no route"),
    ],
)  # fmt: skip
def test_topology(run_module: RunModule, alpha: Any, beta: Any, expected: dict[str, Any], problem: str) -> None:
    guests = [{"name": "web1", "hosts": ["alpha", "beta"]}]
    alpha, beta = dict(alpha, agent_name="alpha"), dict(beta, agent_name="beta")
    entry = run_module("remus_topology", guests=guests, hosts={"alpha": alpha, "beta": beta})["guests"][0]
    assert {name: entry[name] for name in expected} == expected
    assert problem in " ".join(entry["problems"])
    assert bool(entry["problems"]) is bool(problem)
    assert "runs on neither" in problem or "xl create" not in " ".join(entry["problems"])
    assert entry["verdict"].startswith("web1: ")


SHOP = {"name": "shop", "hosts": ["alpha", "beta"], "members": [{"name": "app1"}, {"name": "db1", "disks": []}]}
APP, DB = ({"name": name, "id": number, "paused": False} for number, name in enumerate(("app1", "db1"), 3))


@pytest.mark.parametrize(
    ("alpha", "beta", "owner", "problem"),
    [
        ([APP, DB], [], "alpha", ""),
        ([], [DB, APP], "beta", ""),
        ([DB], [], "alpha", ""),
        ([APP], [DB], None, "the members of group shop run on different hosts (app1 on alpha; db1 on beta)"),
        ([], [], None, "shop runs on neither alpha nor beta"),
    ],
)
def test_a_group_runs_where_its_members_do(
    run_module: RunModule, alpha: list[Any], beta: list[Any], owner: str | None, problem: str
) -> None:
    hosts = {"alpha": host(running=alpha), "beta": host(running=beta)}
    entry = run_module("remus_topology", guests=[SHOP], hosts=hosts)["guests"][0]
    assert entry["owner"] == owner
    assert problem in " ".join(entry["problems"])
    assert bool(entry["problems"]) is bool(problem)


def test_a_group_that_is_protected_runs_where_it_is_protected(run_module: RunModule) -> None:
    mine, copy = status() | {"domain": "shop"}, AS_COPY | {"domain": "shop"}
    hosts = {"alpha": host([mine], [APP, DB]), "beta": host([copy])}
    for name, said in hosts.items():
        said["agent_name"] = name
    entry = run_module("remus_topology", guests=[SHOP], hosts=hosts)["guests"][0]
    assert (entry["owner"], entry["holder"], entry["protected"], entry["problems"]) == ("alpha", "beta", True, [])


def test_topology_names_the_peer_as_the_agents_do(run_module: RunModule) -> None:
    hosts = {"a": host(running=RUNS, agent_name="alpha"), "b": host(agent_name="beta")}
    entry = run_module("remus_topology", guests=[{"name": "web1", "hosts": ["a", "b"]}], hosts=hosts)["guests"][0]
    assert (entry["owner"], entry["other"], entry["peer"]) == ("a", "b", "beta")


@pytest.mark.parametrize(
    ("alpha", "beta", "problem"),
    [
        (
            [status(peer="gamma")],
            [],
            "alpha says that the backup of web1 is gamma, but the inventory pairs it with beta",
        ),
        ([], [status("backup", "ready", "gamma")], "beta says that the primary of web1 is gamma, but the inventory"),
        ([status(peer="beta")], [status("backup", "ready", "alpha")], ""),
        ([status("primary", "solo", "gamma")], [status("none", "discarded", "gamma")], ""),
    ],
)
def test_topology_names_a_peer_that_is_not_in_the_pair(
    run_module: RunModule, alpha: Any, beta: Any, problem: str
) -> None:
    hosts = {"alpha": host(alpha, RUNS, agent_name="alpha"), "beta": host(beta, agent_name="beta")}
    entry = run_module("remus_topology", guests=[{"name": "web1", "hosts": ["alpha", "beta"]}], hosts=hosts)["guests"][
        0
    ]
    assert problem in " ".join(entry["problems"])
    assert bool(entry["problems"]) is bool(problem)


def test_topology_names_mixed_versions(run_module: RunModule) -> None:
    hosts = {
        "alpha": host(running=RUNS, version="0.1.0", xen_version="4.20"),
        "beta": host(version="0.2.0", xen_version="4.17"),
        "gamma": GONE,
        "delta": host(version="0.2.0", release="0.1.0"),
    }
    guests = [{"name": "web1", "hosts": ["alpha", "beta"]}, {"name": "web2", "hosts": ["alpha", "gamma"]}]
    guests.append({"name": "web3", "hosts": ["alpha", "delta"]})
    mixed, unknown, released = run_module("remus_topology", guests=guests, hosts=hosts)["guests"]
    assert "different versions of agent: alpha has 0.1.0, beta has 0.2.0. Next: " in mixed["mixed"][0]
    assert "different versions of Xen: alpha has 4.20, beta has 4.17. Next: " in mixed["mixed"][1]
    assert (len(mixed["mixed"]), unknown["mixed"], released["mixed"]) == (2, [], [])


XL_LIST = """\
Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0   900     1     r-----      62.1
redis1                                       1   128     1     -b----       3.4
redis1--incoming                            12   128     1     --p---       0.0
"""


def test_xl_list_is_read() -> None:
    assert load("xen_host_info").parse_list(XL_LIST) == [
        {"name": "redis1", "id": 1, "memory_mib": 128, "paused": False},
        {"name": "redis1--incoming", "id": 12, "memory_mib": 128, "paused": True},
    ]


def test_host_without_xen_is_a_fact(run_module: RunModule) -> None:
    facts = run_module("xen_host_info", packages=["surely-no-such-package"], domains=False)["host"]
    assert facts["missing_packages"] == ["surely-no-such-package"]
    assert facts["architecture"]
    assert len(facts["boot_id"]) == 36


def test_comments_in_files_of_the_host_may_have_any_encoding(tmp_path: Path) -> None:
    module = load("xen_host_info")
    (tmp_path / "xendomains").write_bytes(b"# f\xfcr B\xfcro\nXENDOMAINS_SAVE=/var/lib/xen/save\n")
    read = module.assignments(module.read_text(str(tmp_path / "xendomains")))
    assert read == {"XENDOMAINS_SAVE": "/var/lib/xen/save"}


def xendomains(folder: Path, configurations: dict[str, str]) -> str:
    """Its settings, and what is in the folder that they name."""
    (folder / "auto").mkdir()
    for name, text in configurations.items():
        (folder / "auto" / name).write_text(text)
    (folder / "xendomains").write_text(f"# as Debian has it\nXENDOMAINS_AUTO={folder}/auto\n")
    return str(folder / "xendomains")


def test_what_the_host_starts_when_it_boots_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("xen_host_info")
    monkeypatch.setattr(module, "run", lambda words: (0, "enabled\n"))
    settings = xendomains(
        tmp_path,
        {
            "10-copy": '# name = \'no\'\nmemory = 128\n name="web1" # the shop\'s "front"\n',
            "20-twice": "name = 'old'\nname = 'web2'\n",
            "40-nameless": "type = 'pvh'\n",
            ".hidden": "name = 'web4'\n",
        },
    )
    (tmp_path / "web3.cfg").write_bytes(b"# f\xfcr B\xfcro\nname = 'web3'\n")
    (tmp_path / "auto" / "30-link").symlink_to(tmp_path / "web3.cfg")
    (tmp_path / "auto" / "50-nowhere").symlink_to(tmp_path / "gone.cfg")
    (tmp_path / "auto" / "60-folder").mkdir()
    os.mkfifo(tmp_path / "auto" / "70-pipe")
    assert module.autostart(settings) == [
        {"file": f"{tmp_path}/auto/{name}", "guest": guest}
        for name, guest in (
            ("10-copy", "web1"),
            ("20-twice", "web2"),
            ("30-link", "web3"),
            ("40-nameless", None),
            ("50-nowhere", None),
            ("60-folder", None),
            ("70-pipe", None),
        )
    ]


def test_a_host_without_xendomains_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("xen_host_info")
    settings = xendomains(tmp_path, {"web1.cfg": "name = 'web1'\n"})
    for code, text, starts in ((0, "enabled", True), (127, "no systemctl", True), (1, "disabled", False)):
        monkeypatch.setattr(module, "run", lambda words, said=(code, text): said)
        assert bool(module.autostart(settings)) is starts, text
    monkeypatch.setattr(module, "run", lambda words: (0, "enabled"))
    for text in ("XENDOMAINS_AUTO=\n", "", f"XENDOMAINS_AUTO={tmp_path}/none\n", f"XENDOMAINS_AUTO={settings}\n"):
        (tmp_path / "xendomains").write_text(text)
        assert module.autostart(settings) == [], text
    assert module.autostart(str(tmp_path / "none")) == []


def test_topology_names_a_guest_that_a_host_would_start_by_itself(run_module: RunModule) -> None:
    """Of its two hosts alone, and also where it runs now: after a failover that is the other one."""
    starts = [
        {"file": "/etc/xen/auto/web1.cfg", "guest": "web1"},
        {"file": "/etc/xen/auto/mail", "guest": "mail"},
        {"file": "/etc/xen/auto/odd", "guest": None},
        {"file": "/etc/xen/auto/db", "guest": "db1"},
    ]
    hosts = {
        "alpha": host(running=[*RUNS, APP, DB], agent_name="alpha", autostart=starts),
        "beta": host(agent_name="beta", autostart=starts[:1]),
        "gamma": host(agent_name="gamma", autostart=starts),
    }
    guests = [{"name": "web1", "hosts": ["alpha", "beta"]}, SHOP, {"name": "mail", "hosts": ["beta", "alpha"]}]
    web, shop, _ = run_module("remus_topology", guests=guests, hosts=hosts)["guests"]
    assert (web["owner"], shop["owner"]) == ("alpha", "alpha")
    remedy = "Next: remove that link, or move that file to another folder"
    odd = "nobody can tell which guest alpha starts from /etc/xen/auto/odd when it boots. Next: "
    assert [problem.split(", also")[0] for problem in web["problems"] if remedy in problem] == [
        f"{name} starts web1 from /etc/xen/auto/web1.cfg when it boots" for name in ("alpha", "beta")
    ]
    assert [problem.split(", also")[0] for problem in shop["problems"] if remedy in problem] == [
        "alpha starts db1 from /etc/xen/auto/db when it boots"
    ]
    assert sum(problem.startswith(odd) for problem in web["problems"]) == 1
    assert (len(web["problems"]), len(shop["problems"])) == (3, 2)


@pytest.mark.parametrize(
    ("bridges", "missing"),
    [(["xenbr0", "dmz"], []), (["dmz"], ["xenbr0"]), ([], ["dmz", "xenbr0"]), (None, [])],
    ids=["all", "one", "none", "not known"],
)
def test_topology_names_a_bridge_that_the_other_host_does_not_have(
    run_module: RunModule, bridges: list[str] | None, missing: list[str]
) -> None:
    """Its own host has them, whatever is read there."""
    runs = [
        {"name": "web1", "id": 3, "paused": False, "bridges": ["xenbr0", "dmz"]},
        {"name": "mail", "id": 4, "paused": False, "bridges": ["mail"]},
    ]
    hosts = {
        "alpha": host([status()], runs, bridges=[], agent_name="alpha"),
        "beta": host([AS_COPY], bridges=bridges, agent_name="beta"),
    }
    guests = [{"name": "web1", "hosts": ["alpha", "beta"]}]
    entry = run_module("remus_topology", guests=guests, hosts=hosts)["guests"][0]
    said = "web1 is on the bridge {} of alpha, and beta has no bridge of that name, so it could not run there. "
    assert [problem.partition("Next: make one on beta")[0] for problem in entry["problems"]] == [
        said.format(name) for name in missing
    ]


def test_bridges_are_read_from_the_kernel(tmp_path: Path) -> None:
    module = load("xen_host_info")
    for name in ("xenbr0/bridge", "dmz/bridge", "lo", "vif3.2"):
        (tmp_path / name).mkdir(parents=True)
    for port, bridge in (("eno1", "xenbr0"), ("vif3.0", "xenbr0"), ("vif3.1", "dmz"), ("vif31.0", "dmz")):
        (tmp_path / port / "brport").mkdir(parents=True)
        (tmp_path / port / "brport" / "bridge").symlink_to(tmp_path / bridge)
    net = str(tmp_path)
    assert module.bridges(net) == ["dmz", "xenbr0"]
    assert [module.bridges_of(domid, net) for domid in (3, 31, 1)] == [["dmz", "xenbr0"], ["dmz"], []]
    assert (module.bridges(f"{net}/none"), module.bridges_of(3, f"{net}/none")) == ([], [])


def test_topology_names_a_host_that_is_not_in_its_group(run_module: RunModule) -> None:
    guests = [{"name": "web1", "hosts": ["alpha", "zeta"]}]
    entry = run_module("remus_topology", guests=guests, hosts={"alpha": host(running=RUNS)})["guests"][0]
    assert "zeta is not in the inventory's group of hosts. Next: add it" in entry["problems"]


@pytest.mark.parametrize(
    ("answers", "error", "domains"),
    [
        ({"info": (127, "No such file or directory: 'xl'"), "list": (0, "")}, "No such file or directory: 'xl'", []),
        ({"info": (0, "virt_caps : pv hvm hap"), "list": (1, "libxl: error: no xenstore")}, "libxl: error: no xenstore", []),
        ({"info": (0, "virt_caps : pv hvm hap\nfree_memory : 900"), "list": (0, XL_LIST)}, None, ["redis1", "redis1--incoming"]),
    ],
    ids=["no xl", "no list", "works"],
)  # fmt: skip
def test_a_toolstack_that_does_not_work_is_a_fact(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any], error: str | None, domains: list[str]
) -> None:
    module = load("xen_host_info")
    monkeypatch.setattr(module, "run", lambda words: answers[words[1]])
    facts: dict[str, Any] = {"toolstack_error": None, "domains": []}
    module.toolstack(facts, True)
    assert facts["toolstack_error"] == error
    assert [domain["name"] for domain in facts["domains"]] == domains
