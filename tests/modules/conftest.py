"""A fake agent on a Unix socket, and a way to run a module's main() as Ansible would."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import pytest
import yaml
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args

ROOT = Path(__file__).resolve().parents[2]
UTILS = str(ROOT / "module_utils")
if UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.insert(0, UTILS)  # before a link to another checkout's (tools/link_module_utils.py)

READ_ONLY = {"agent", "list", "status", "probe", "events", "records"}


def load(name: str) -> ModuleType:
    """A module of library/ as Python sees it."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "library" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class ScriptedAgent:
    """Answers by method: a value, an exception's dict under `error`, or a function of the parameters."""

    path: str
    answers: dict[str, Any] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def mutating(self) -> list[str]:
        """Methods that were asked for and change something."""
        return [
            method for method, params in self.requests if method not in READ_ONLY and not params.get("dry_run", False)
        ]

    def reply(self, request: dict[str, Any]) -> list[bytes]:
        """Lines to send for one request."""
        self.requests.append((request["method"], request["params"]))
        answer = self.answers.get(request["method"], {"error": {"code": "refused", "message": "unknown method"}})
        if callable(answer):
            answer = answer(request["params"])
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, bytes):
            return [answer]
        if isinstance(answer, dict) and "error" in answer:
            return [line({"id": request["id"], "error": answer["error"]})]
        progress = {"phase": "seeding", "done": 1, "total": 2, "unit": "pages", "message": "", "elapsed": 0.1}
        return [line({"id": request["id"], "progress": progress}), line({"id": request["id"], "result": answer})]


def line(message: dict[str, Any]) -> bytes:
    """One line of the control protocol."""
    return json.dumps(message).encode() + b"\n"


def serve(agent: ScriptedAgent, listener: socket.socket) -> None:
    """One connection after the other until the listener is closed."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        # A client that has heard enough closes its end without reading the rest.
        with connection, connection.makefile("rb") as lines, contextlib.suppress(ConnectionError):
            for text in lines:
                for answer in agent.reply(json.loads(text)):
                    if answer == b"HANG":
                        connection.recv(1)
                        break
                    connection.sendall(answer)
                    if not answer.endswith(b"\n"):
                        connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def agent() -> Iterator[ScriptedAgent]:
    """A running fake agent."""
    with tempfile.TemporaryDirectory(prefix="remus-") as folder:
        path = str(Path(folder, "agent.sock"))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(4)
        fake = ScriptedAgent(path)
        thread = threading.Thread(target=serve, args=(fake, listener), daemon=True)
        thread.start()
        yield fake
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        assert not thread.is_alive()


class Finished(Exception):
    """The module ended; result is what Ansible gets."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__(result.get("msg", ""))
        self.result = result


RunModule = Callable[..., dict[str, Any]]
TYPES = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": list, "dict": dict}
OF_ANSIBLE = {"changed", "diff", "failed", "msg", "warnings"}
"""What every module may return."""


def as_documented(module: ModuleType, result: dict[str, Any]) -> None:
    """Raises where a module's result is not what its RETURN says: something more, another type, or nothing where it always
    returns something."""
    values: dict[str, Any] = yaml.safe_load(module.RETURN)
    unknown = set(result) - set(values) - OF_ANSIBLE
    assert not unknown, f"{module.__name__} returns {sorted(unknown)}, which RETURN does not name"
    if "failed" in result:
        return
    for name, said in values.items():
        assert name in result or said["returned"] not in ("success", "always"), (
            f"{module.__name__} does not return {name}"
        )
        _of_type(f"{module.__name__}: {name}", said, result.get(name))


def _of_type(where: str, said: dict[str, Any], value: Any) -> None:
    """A value or a part of it; none is allowed everywhere, and said in words."""
    if value is None:
        return
    assert isinstance(value, TYPES[said["type"]]), f"{where} is {value!r}, not a {said['type']}"
    inside = value if isinstance(value, list) else [value]
    if "elements" in said:
        assert all(isinstance(one, TYPES[said["elements"]]) for one in inside), where
    for name, part in said.get("contains", {}).items():
        for one in inside:
            _of_type(f"{where}.{name}", part, one.get(name))


def results_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that ends raises Finished, instead of printing its result and leaving."""

    def finish(self: Any, **result: Any) -> None:
        raise Finished(result)

    def fail(self: Any, msg: str, **result: Any) -> None:
        raise Finished({"failed": True, "msg": msg, **result})

    monkeypatch.setattr(basic.AnsibleModule, "exit_json", finish)
    monkeypatch.setattr(basic.AnsibleModule, "fail_json", fail)


def result_of(module: ModuleType, **options: Any) -> dict[str, Any]:
    """What a module gives Ansible, which is what its RETURN says."""
    with patch_module_args(options), pytest.raises(Finished) as finished:
        module.main()
    as_documented(module, finished.value.result)
    return finished.value.result


@pytest.fixture
def run_module(monkeypatch: pytest.MonkeyPatch) -> RunModule:
    """run_module(module, check=False, **options) -> the module's result, with `failed` set on failure."""
    results_are_raised(monkeypatch)

    def run(module: str, /, check: bool = False, **options: Any) -> dict[str, Any]:
        return result_of(load(module), **options, _ansible_check_mode=check)

    return run
