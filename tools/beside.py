"""A command that runs beside others, with the processor time that they leave."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class Beside:
    """Runs until it ends or is stopped; its output goes to a file."""

    def __init__(self, command: Sequence[str], output: Path, folder: Path, environment: Mapping[str, str]) -> None:
        self.output = output
        with output.open("w") as file:
            self._process = subprocess.Popen(
                ("nice", "-n", "19", *command),
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # Linux may share the processor among sessions first, whatever the niceness of their processes is.
        with contextlib.suppress(OSError):
            Path(f"/proc/{self._process.pid}/autogroup").write_text("19")

    def wait(self, seconds: float) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired when it has not ended after so many seconds more."""
        return self._process.wait(seconds)

    def stop(self) -> None:
        """End it with all its processes, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
