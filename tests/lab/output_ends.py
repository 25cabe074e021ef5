"""The two ends of a guest's output: the agent's output buffer in dom0, and the wire behind the host's port."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from beacon import KINDS
from lab_hosts import LAB_FOLDER, LABCTL, Guest, Lines

LIMIT = 8 << 20
QUIET = 1.5
"""Seconds without a frame after which held frames count as held; what is let out arrives in tens of
milliseconds."""
PATIENCE = 360.0
"""Seconds for anything that should come; an emulated host may need most of a minute to start Python."""


class Refused(AssertionError):
    """The adapter answered with an error."""


class Wire:
    """What leaves the guest's host, and requests to its beacon."""

    def __init__(self, guest: Guest) -> None:
        beacon = Path(__file__).parent / "beacon.py"
        command = ["python3", str(LABCTL), "--state", str(LAB_FOLDER), "exec", "--", "python3", str(beacon)]
        self._process = subprocess.Popen(
            [*command, f"{guest.host.name}-g", "br-guests", guest.mac, guest.address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input = self._process.stdin
        self._lines = Lines(self._process.stdout)
        assert self._lines.next(PATIENCE) == {"kind": "ready"}

    def close(self) -> None:
        self._input.close()
        self._process.wait(PATIENCE)

    def send(self, sequence: int) -> None:
        self._command(f"send {sequence}")

    def rounds(self, count: int) -> None:
        self._command(f"rounds {count}")

    def _command(self, text: str) -> None:
        self._input.write(f"{text}\n".encode())
        self._input.flush()

    def until(self, done: Callable[[list[dict[str, Any]]], bool], what: str) -> list[dict[str, Any]]:
        """The frames that come until they satisfy a condition."""
        frames: list[dict[str, Any]] = []
        deadline = time.monotonic() + PATIENCE
        while not done(frames):
            frame = self._lines.next(deadline - time.monotonic())
            assert frame is not None, f"{what} did not come, only {tally(frames)}"
            frames.append(frame)
        return frames

    def during(self, seconds: float) -> list[dict[str, Any]]:
        """The frames that come in a span of time."""
        frames = []
        deadline = time.monotonic() + seconds
        while (frame := self._lines.next(deadline - time.monotonic())) is not None:
            frames.append(frame)
        return frames

    def all_kinds(self, sequence: int) -> list[dict[str, Any]]:
        """The frames that come until a sequence number was seen in all kinds."""
        wanted = {(kind, sequence) for kind in KINDS}
        return self.until(lambda frames: wanted <= tally(frames).keys(), f"{sequence} in all kinds")

    def quiet(self, came: Sequence[dict[str, Any]] = ()) -> None:
        """Assert that nothing comes from the guest, and that nothing CAME before."""
        leaked = [*came, *self.during(QUIET)]
        assert not leaked, f"frames left the host although they should be held: {tally(leaked)}"


def tally(frames: list[dict[str, Any]]) -> Counter[tuple[str, int | None]]:
    return Counter((frame["kind"], frame["sequence"]) for frame in frames)


class Agent:
    """A process in dom0 that holds the output buffer of the guest."""

    def __init__(self, guest: Guest, package: str, fault: str = "", limit: int = LIMIT) -> None:
        self._guest = guest
        setting = f"REMUS_SEEDED_FAULT={fault} PYTHONPATH={package}"
        arguments = shlex.join([guest.as_json(), str(limit)])
        self._process = guest.host.start(f"{setting} exec python3 {package}/buffer_agent.py {arguments}")
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input = self._process.stdin
        self._lines = Lines(self._process.stdout)
        self.pid = self._answer()

    def _answer(self) -> Any:
        line = self._lines.next(PATIENCE)
        assert line is not None, "the adapter in dom0 does not answer"
        if "error" in line:
            raise Refused(json.dumps(line["error"]))
        return line["ok"]

    def do(self, what: str, **facts: Any) -> Any:
        self._input.write(json.dumps({"do": what, **facts}).encode() + b"\n")
        self._input.flush()
        return self._answer()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._guest.host.run(f"kill -KILL {self.pid}")
        assert self._process.wait(PATIENCE) != 0

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        self._process.wait(PATIENCE)

    def held_at_least(self, packets: int) -> dict[str, int]:
        """The state once so many packets are held."""
        deadline = time.monotonic() + PATIENCE
        while True:
            state: dict[str, int] = self.do("state")
            if state["held_packets"] >= packets:
                return state
            assert time.monotonic() < deadline, f"{packets} packets should be held: {state}"
