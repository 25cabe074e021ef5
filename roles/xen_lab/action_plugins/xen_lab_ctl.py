# SPDX-License-Identifier: Apache-2.0
"""Run ``labctl`` on the controller and show its progress lines as they come.

Arguments: ``command`` (``up`` or ``down``) and ``options`` (a mapping, passed as ``--name value``, one that is true or false
as ``--name`` or not at all). The last line of
labctl's output decides ``changed``. In check mode nothing runs but ``labctl status``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

LABCTL = Path(__file__).resolve().parents[1] / "files" / "labctl"


class ActionModule(ActionBase):
    """The ``xen_lab_ctl`` action."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the command; the result's ``changed`` is the command's own."""
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "command": {"type": "str", "required": True, "choices": ["up", "down"]},
                "options": {"type": "dict", "default": {}},
            },
        )
        if self._task.check_mode:
            wanted = {name: bool(arguments["options"].get(name)) for name in ("witness", "bmc")}
            return {"changed": self._predict(arguments["command"], **wanted)}
        words = [arguments["command"]]
        for name, value in arguments["options"].items():
            if not isinstance(value, bool):
                words += [f"--{name}", str(value)]
            elif value:
                words.append(f"--{name}")
        return {"changed": self._stream(words)}

    def _predict(self, command: str, *, witness: bool, bmc: bool) -> bool:
        """Whether COMMAND would find something to do; up also for the WITNESS and each host's BMC where they are wanted."""
        status = subprocess.run([sys.executable, str(LABCTL), "status"], capture_output=True, text=True, check=False)
        if status.returncode != 0:
            raise AnsibleActionFail(status.stderr.strip())
        known = json.loads(status.stdout)
        running = [host["running"] for host in known["hosts"].values()]
        managed = [host["bmc_port"] is not None for host in known["hosts"].values()]
        if command == "up":
            beside = (known["witness"]["running"] or not witness) and (all(managed) or not bmc)
            return not (known["network"] and all(running) and beside)
        return bool(known["network"] or any(running) or known["witness"]["running"] or any(managed))

    def _stream(self, words: list[str]) -> bool:
        """Run labctl with WORDS, show its lines, return its ``changed``."""
        display = Display()
        last = ""
        with subprocess.Popen(
            [sys.executable, "-u", str(LABCTL), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            if process.stdout is None or process.stderr is None:
                raise AnsibleActionFail("labctl gave no output")
            for line in process.stdout:
                if last:
                    display.display(f"  {last}")
                last = line.rstrip("\n")
            said = process.stderr.read().strip()
        if process.returncode != 0:
            if last:
                display.display(f"  {last}")
            raise AnsibleActionFail(said or f"labctl failed with status {process.returncode}")
        try:
            return bool(json.loads(last)["changed"])
        except (ValueError, KeyError) as error:
            raise AnsibleActionFail(f"labctl ended with an unexpected line: {last!r}") from error
