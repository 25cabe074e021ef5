"""remus_protection: what it asks, what it changes and what it says, for every state that an agent can report."""

from __future__ import annotations

from typing import Any

import pytest

from tests.modules.conftest import RunModule, ScriptedAgent


def status(role: str = "primary", state: str = "protected", peer: str | None = "beta", **more: Any) -> dict[str, Any]:
    """A status as an agent sends it."""
    return {
        "domain": "web1", "role": role, "state": state, "peer": peer, "session": "s1", "generation": 3, "epoch": 9,
        "acked_epoch": 8, "committed_epoch": 8, "held_bytes": 0, "interval_ms": 0, "reason": None, **more,
    }  # fmt: skip


NONE = status("none", "unprotected", None)
UNKNOWN = {"error": {"code": "domain-not-found", "message": "no such domain", "domain": "web1"}}
YES = {"ok": True, "reasons": [], "facts": {}}
NO = {"ok": False, "facts": {}, "reasons": [
    {"code": "memory", "message": "beta has 10 MiB free", "hint": "stop a guest there"},
    {"code": "xen", "message": "Xen 4.17 and 4.20 differ", "hint": "upgrade one"},
]}  # fmt: skip


@pytest.mark.parametrize(
    ("now", "changed"),
    [
        (NONE, True),
        (UNKNOWN, True),
        (status("none", "failed"), True),
        (status("primary", "active", "alpha"), True),
        (status(), False),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_present(agent: ScriptedAgent, run_module: RunModule, now: Any, changed: bool, check: bool) -> None:
    agent.answers = {"status": [now, status()] if changed else now, "probe": YES, "protect": status()}
    result = run_module("remus_protection", check=check, name="web1", peer="beta", socket=agent.path)
    assert not result.get("failed"), result
    assert result["changed"] is changed
    assert bool(result["diff"]["after"]) is changed
    assert agent.mutating == (["protect"] if changed and not check else [])
    if changed:
        assert "probe" in [method for method, _ in agent.requests]
        assert result["diff"]["after"]["state"] == "protected"


def test_second_run_is_unchanged(agent: ScriptedAgent, run_module: RunModule) -> None:
    agent.answers = {"status": [NONE, status()], "probe": YES, "protect": status()}
    first = run_module("remus_protection", name="web1", peer="beta", socket=agent.path)
    second = run_module("remus_protection", name="web1", peer="beta", socket=agent.path)
    assert (first["changed"], second["changed"]) == (True, False)
    assert agent.mutating == ["protect"]
    assert first["protection"]["state"] == "protected"
    assert first["progress"]["phase"] == "seeding"


def test_options_are_passed_only_where_given(agent: ScriptedAgent, run_module: RunModule) -> None:
    agent.answers = {"status": [NONE, status(), NONE, status()], "probe": YES, "protect": status()}
    run_module("remus_protection", name="web1", peer="beta", socket=agent.path)
    run_module(
        "remus_protection",
        name="web1",
        peer="beta",
        interval_ms=20,
        output_limit_bytes=4096,
        timeout=60,
        socket=agent.path,
    )
    sent = [params for method, params in agent.requests if method == "protect"]
    assert sent[0] == {"domain": "web1", "peer": "beta", "wait": True, "timeout": 900}
    assert sent[1] == {
        "domain": "web1", "peer": "beta", "wait": True, "timeout": 60, "interval_ms": 20, "output_limit_bytes": 4096,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("now", "options", "code", "words"),
    [
        (status(peer="gamma"), {}, "other-peer", "protected by gamma, not by beta"),
        (status("backup", "receiving", "alpha"), {}, "wrong-host", "primary is alpha"),
        (status(state="stopping"), {}, "stopping", "just being stopped"),
        (status(interval_ms=0), {"interval_ms": 50}, "other-settings", "an interval of 0 ms, not 50 ms"),
        (
            status(output_limit_bytes=65536),
            {"output_limit_bytes": 131072},
            "other-settings",
            "a limit of held output of 65536 bytes, not 131072 bytes",
        ),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_present_refuses(
    agent: ScriptedAgent, run_module: RunModule, now: Any, options: dict[str, Any], code: str, words: str, check: bool
) -> None:
    agent.answers = {"status": now, "probe": YES, "protect": status()}
    result = run_module("remus_protection", check=check, name="web1", peer="beta", socket=agent.path, **options)
    assert result["failed"]
    assert result["error"]["code"] == code
    assert words in result["msg"]
    assert "Next: " in result["msg"]
    assert agent.mutating == []


def test_every_reason_of_a_probe_is_told(agent: ScriptedAgent, run_module: RunModule) -> None:
    agent.answers = {"status": NONE, "probe": NO}
    result = run_module("remus_protection", name="web1", peer="beta", socket=agent.path)
    assert result["failed"]
    assert [reason["code"] for reason in result["error"]["reasons"]] == ["memory", "xen"]
    assert "10 MiB free (next: stop a guest there); Xen 4.17 and 4.20 differ" in result["msg"]
    assert agent.mutating == []


def test_silent_protection_is_waited_for(agent: ScriptedAgent, run_module: RunModule) -> None:
    agent.answers = {"status": [status(state="silent"), status(state="silent"), status()]}
    result = run_module("remus_protection", name="web1", peer="beta", socket=agent.path)
    assert result["changed"] is False
    assert result["protection"]["state"] == "protected"


def test_silent_protection_in_time(agent: ScriptedAgent, run_module: RunModule) -> None:
    agent.answers = {"status": status(state="silent", reason="link down")}
    result = run_module("remus_protection", name="web1", peer="beta", timeout=0, socket=agent.path)
    assert result["failed"]
    assert "its state is 'silent' (link down)" in result["msg"]


def test_failure_after_protect_names_the_reason(agent: ScriptedAgent, run_module: RunModule) -> None:
    agent.answers = {"status": [NONE, status(state="failed", reason="peer full")], "probe": YES, "protect": status()}
    result = run_module("remus_protection", name="web1", peer="beta", socket=agent.path)
    assert result["failed"]
    assert "peer full" in result["msg"]


def test_a_rival_with_the_same_wish_is_no_error(agent: ScriptedAgent, run_module: RunModule) -> None:
    agent.answers = {
        "status": [NONE, status()], "probe": YES,
        "protect": {"error": {"code": "already-protected", "message": "web1 is protected by beta"}},
    }  # fmt: skip
    assert run_module("remus_protection", name="web1", peer="beta", socket=agent.path)["changed"] is True


@pytest.mark.parametrize(
    ("now", "force", "changed"),
    [
        (status(), False, True),
        (status(state="silent"), False, True),
        (NONE, False, False),
        (UNKNOWN, False, False),
        (status("backup", "orphaned", "alpha"), True, True),
        (status("backup", "discarded", "alpha"), False, False),
        (status("backup", "active", "alpha"), True, False),
        (status("primary", "active", "alpha"), True, False),
        (status("none", "failed"), False, False),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_absent(agent: ScriptedAgent, run_module: RunModule, now: Any, force: bool, changed: bool, check: bool) -> None:
    agent.answers = {"status": [now, NONE] if changed else now, "unprotect": NONE}
    result = run_module("remus_protection", check=check, name="web1", state="absent", force=force, socket=agent.path)
    assert not result.get("failed"), result
    assert result["changed"] is changed
    assert agent.mutating == (["unprotect"] if changed and not check else [])


@pytest.mark.parametrize("check", [False, True])
def test_absent_never_loses_a_copy_unasked(agent: ScriptedAgent, run_module: RunModule, check: bool) -> None:
    agent.answers = {"status": status("backup", "receiving", "alpha")}
    result = run_module("remus_protection", check=check, name="web1", state="absent", socket=agent.path)
    assert result["failed"]
    assert result["error"]["code"] == "copy-would-be-lost"
    assert agent.mutating == []


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (b"not json\n", "agent-protocol", "not JSON"),
        (b'["list"]\n', "agent-protocol", "not a JSON object"),
        (b'{"id": 1}\n', "agent-protocol", "no result and no error"),
        (b'{"id": 1, "res', "agent-unavailable", "closed the connection"),
        ({"error": {"code": "hypervisor", "message": "xc failed", "left": "the guest runs", "hint": "see xl dmesg"}},
         "hypervisor", "xc failed. State left: the guest runs. Next: see xl dmesg."),
    ],
)  # fmt: skip
def test_bad_answers_are_told(agent: ScriptedAgent, run_module: RunModule, answer: Any, code: str, words: str) -> None:
    agent.answers = {"status": answer}
    result = run_module("remus_protection", name="web1", peer="beta", socket=agent.path)
    assert result["failed"]
    assert result["error"]["code"] == code
    assert words in result["msg"]


def test_no_agent(run_module: RunModule, tmp_path: Any) -> None:
    result = run_module("remus_protection", name="web1", peer="beta", socket=str(tmp_path / "none.sock"))
    assert result["error"]["code"] == "agent-unavailable"
    assert "playbooks/site.yml" in result["msg"]


def test_peer_is_demanded(run_module: RunModule) -> None:
    assert "peer" in run_module("remus_protection", name="web1")["msg"]
