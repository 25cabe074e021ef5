"""`remusctl selftest`: whether this host, its agent and all that they need could do their part now."""

from __future__ import annotations

import argparse
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from remus_agent.cli.client import AgentError, AgentUnavailable, Client
from remus_agent.cli.output import show
from remus_agent.cli.progress import ProgressLines
from remus_agent.cli.reading import FENCE_TIMEOUT
from remus_agent.cli.render import table, text
from remus_agent.errors import ConfigError, ProtocolError

MODULES: Final = ("ifb", "sch_plug", "sch_ingress", "act_mirred", "cls_matchall")
"""Without which no output can be held; the role xen_host loads them."""
FAILED: Final = 1
_ALIVE: Final = 30.0
"""Seconds for an agent, and a supervisor, to answer anything at all."""
_SYS_MODULES: Final = Path("/sys/module")
_BUILT_IN: Final = Path("/lib/modules")


def selftest(client: Client, options: argparse.Namespace, _: ProgressLines) -> int:
    """Every check; ends with 1 when one fails, with 12 when there is no agent to ask."""
    checks = [_configuration(options.config), _modules(), _supervisor(options.supervisor)]
    code = 0
    try:
        client.call(
            "events", {"limit": 1}, timeout=_ALIVE
        )  # asks nobody else: the checks may take as long as a fence agent
        answer = client.call("selftest", timeout=FENCE_TIMEOUT)
        checks.append(_check("agent", "ok", f"answers, of host {answer.get('host')}"))
        checks += answer.get("checks") or []
    except AgentUnavailable as error:
        checks.append(_check("agent", "fail", error.message, error.hint))
        code = error.exit_code
    except (AgentError, ProtocolError) as error:
        checks.append(_check("agent", "fail", error.message, error.hint or "see journalctl -u remus-agent"))
    if code == 0 and any(check.get("result") == "fail" for check in checks):
        code = FAILED
    show(options, {"ok": code == 0, "checks": checks}, "\n".join(_render(checks)))
    return code


def _check(name: str, result: str, message: str, hint: str | None = None) -> dict[str, Any]:
    return {"name": name, "result": result, "message": message, "next": hint}


def _configuration(path: Path) -> dict[str, Any]:
    # Imported here: it doubles the time that every command takes to start.
    from remus_agent import config  # noqa: PLC0415

    try:
        config.check_own(config.load(path))
    except ConfigError as error:
        if not os.access(path, os.R_OK) and path.exists():
            return _check("configuration", "warn", f"{path} cannot be read by this user", "run this as root")
        return _check("configuration", "fail", error.message, error.hint)
    return _check("configuration", "ok", f"{path} is valid")


def _modules() -> dict[str, Any]:
    missing = [name for name in MODULES if not (_SYS_MODULES / name).exists() and name not in _built_in()]
    if not missing:
        return _check("kernel modules", "ok", f"{len(MODULES)} of {len(MODULES)} are loaded")
    return _check(
        "kernel modules",
        "fail",
        f"not loaded: {', '.join(missing)}",
        f"modprobe -a {' '.join(missing)}; then playbooks/site.yml",
    )


def _built_in() -> frozenset[str]:
    """Modules that are part of the kernel; those without a parameter are not in /sys."""
    try:
        lines = (_BUILT_IN / os.uname().release / "modules.builtin").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(Path(line).stem for line in lines)


def _supervisor(path: Path) -> dict[str, Any]:
    """Also that it answers: the kernel takes connections for a process that hangs. Any answer is one."""
    hint = "without it a guest stays suspended when its agent dies: systemctl restart remus-supervisor"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_ALIVE)
        try:
            sock.connect(str(path))
            sock.sendall(json.dumps({"alive": True}).encode() + b"\n")
            answered = sock.recv(1)
        except PermissionError:
            return _check("supervisor", "warn", f"{path} is for root", "run this as root")
        except TimeoutError:
            return _check("supervisor", "fail", f"it has not answered within {_ALIVE:g} s", hint)
        except OSError as error:
            return _check("supervisor", "fail", f"nobody answers on {path}: {error.strerror or error}", hint)
    if not answered:
        return _check("supervisor", "fail", f"who listens on {path} closes connections", hint)
    return _check("supervisor", "ok", "answers")


def _render(checks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield table(
        ("RESULT", "CHECK", "FOUND"),
        (
            (str(one.get("result")).upper() if one.get("result") != "ok" else "ok", one.get("name"), one.get("message"))
            for one in checks
        ),
    )
    for one in checks:
        if one.get("next"):
            yield f"{text(one.get('name'))}: next: {text(one['next'])}"
    counts = {result: sum(one.get("result") == result for one in checks) for result in ("ok", "warn", "fail")}
    yield ", ".join(f"{count} {result}" for result, count in counts.items())
