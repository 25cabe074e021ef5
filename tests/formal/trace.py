"""Whether a sequence of events is something that the model of authority can do.

There is no second model for it: the model itself, compiled with -DTRACE, may take a step that is visible from outside only when
it is the next event of the trace; spin searches whether some run takes them all. Steps that nobody sees (messages that
are lost, answers that do not come, what a host reads) are free, and as many as it takes.

A trace begins with the guest running on `owner`, its output open, the record (owner, 1, solo), and both agents started.
"""

from __future__ import annotations

import atexit
import functools
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tests.formal import spin

LONGEST = 32_000
"""Events a trace may have: the model counts them in a C short."""


class Action(Enum):
    """What can be seen of a host. In brackets: what the generation and the epoch of the event are; 0 where nothing is said."""

    SESSION = 1  # a primary and the backup have agreed on a session (that of HELLO)
    BARRIER = (
        2  # a primary ends an epoch; from the first one of a session on, output is held (the session's; the epoch)
    )
    COMMIT = 3  # a backup commits an epoch (the session's; the epoch)
    RELEASE = 4  # a primary lets the output of an epoch out (the session's; the epoch)
    OPEN = 5  # a host lets everything out, and holds nothing from now on (the record's, which it owns as solo)
    PROTECT = 6  # the record becomes (host, generation, protected), as its primary has asked (the new one)
    SOLO = 7  # the record becomes (host, generation, solo), as its owner has asked (the new one)
    TAKE = 8  # the record becomes (host, generation, solo), as its backup has asked (the new one)
    GIVE = 9  # the record becomes (the other host, generation, solo): this owner never ran the guest (the new one)
    ACTIVATE = 10  # a host makes its copy run, or has noted that it is about to (the record's)
    STAND_DOWN = 11  # a host pauses its guest, because another one owns it (the record's)
    AGENT_CRASH = 12  # an agent dies, and starts again some time
    HOST_CRASH = 13  # a host dies with its guest, and starts again some time
    RESUME = 14  # a host that had stood down is the owner again, and its guest runs on (the record's)
    ALONE = 15  # a host has noted that its guest runs there alone: by that its next agent opens output


@dataclass(frozen=True)
class Event:
    """One thing that was seen. Events are in the order in which they took effect; changes of the record, when the witness
    made them, whether its answer came or not. Epochs are counted from 1 in each session."""

    host: str
    action: Action
    generation: int = 0
    epoch: int = 0

    def __str__(self) -> str:
        return f"{self.host} {self.action.name} generation {self.generation} epoch {self.epoch}"


class TraceRejectedError(AssertionError):
    """The model cannot do this. event: the first one that no run of the model reaches; index: its place."""

    def __init__(self, trace: Sequence[Event], index: int) -> None:
        before = "".join(f"\n  {each}" for each in trace[max(0, index - 8) : index])
        super().__init__(
            f"event {index} is not possible in the model: {trace[index]}; before it:{before or ' nothing'}"
        )
        self.index = index
        self.event = trace[index]


def check(trace: Sequence[Event], *, owner: str, backup: str) -> None:
    """Raise TraceRejectedError when the model cannot do all of the trace. owner: the host that runs the guest at its start."""
    if not trace:
        return
    if len(trace) > LONGEST:
        raise ValueError(f"a trace of {len(trace)} events; at most {LONGEST}")
    numbers = {owner: 0, backup: 1}
    lines = [f"{numbers[each.host]} {each.action.value} {each.generation} {each.epoch}\n" for each in trace]
    verifier = _verifier()
    with tempfile.NamedTemporaryFile("w", dir=verifier.parent, suffix=".trace") as file:
        file.writelines(lines)
        file.flush()
        verdict = spin.search(
            verifier, depth=10_000 + 30 * len(trace), hash_bits=18, environment={"REMUS_TRACE": file.name}
        )
    if verdict.error and verdict.error.startswith("assertion violated x_act "):
        return  # the model's assertion at the end of a trace
    if verdict.errors or not verdict.complete:
        raise spin.SpinError(f"the search for this trace was cut short:\n{verdict.text}")
    done = re.search(r"events done: (\d+)", verdict.text)
    assert done is not None, verdict.text
    raise TraceRejectedError(trace, int(done[1]))


@functools.cache
def _verifier() -> Path:
    """Made once a process."""
    directory = Path(tempfile.mkdtemp(prefix="remus-trace-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    bounds = ("HF=32000", "GF=32000", "SF=32000", "BF=250")
    return spin.build(directory, ("TRACE", "CHECK=0", *bounds), ("-DSAFETY",))
