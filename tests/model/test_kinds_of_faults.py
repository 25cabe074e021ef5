"""Each kind of fault is worth drawing: there is a defect that it finds, and that the plan does not show without it.

The defects are of the code, or of an adapter that does not keep what its port says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from remus_agent.adapters.journal import blocks
from remus_agent.errors import OwnershipLost, WitnessConflict
from remus_agent.protocol.replication.frames import Frame
from remus_agent.protocol.replication.message_frames import decode
from remus_agent.protocol.replication.messages import MemoryAck
from remus_agent.services.authority import Authority
from remus_agent.services.session import PrimarySession
from remus_agent.store_ports import CommitRecord, GuestRecord
from tests.model.plans import ASK_TWICE, REPEAT, TEAR_COMMIT, TEAR_NOTE, Plan, plan_of
from tests.model.simulate import simulate
from tests.model.storage import Disk, Journal

Patch = pytest.MonkeyPatch
FOUND_WITHIN = 1000


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Failures are provoked; each would be logged."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


_behind: set[asyncio.Task[None]] = set()


def _later(work: Any) -> None:
    task = asyncio.ensure_future(work)
    _behind.add(task)
    task.add_done_callback(_behind.discard)


def commits_behind(patch: Patch) -> None:
    """A commit is said to be durable before it is."""
    commit = Journal.commit

    async def at_once(self: Journal, record: CommitRecord) -> None:
        _later(commit(self, record))

    patch.setattr(Journal, "commit", at_once)


def notes_behind(patch: Patch) -> None:
    """The same of an agent's notes."""
    save = Disk.save

    async def at_once(self: Disk, record: GuestRecord) -> None:
        _later(save(self, record))

    patch.setattr(Disk, "save", at_once)


def checksum_unread(patch: Patch) -> None:
    """A block counts whatever its checksum says."""
    patch.setattr(blocks, "crc32", lambda _: 0)


def any_acknowledgement(patch: Patch) -> None:
    """An acknowledgement is taken for that of the epoch which waits, whichever it is of."""
    handle = PrimarySession._handle

    def believing(self: PrimarySession, frame: Frame) -> None:
        if isinstance(decode(frame), MemoryAck):
            self._expected = None
            self._acked.set()
        else:
            handle(self, frame)

    patch.setattr(PrimarySession, "_handle", believing)


def conflict_is_final(patch: Patch) -> None:
    """A change that was in vain is taken for the word that another host owns the guest."""
    change = Authority._change

    async def once(self: Authority, guest: str, found: Any, wanted: Any) -> None:
        try:
            await change(self, guest, found, wanted)
        except WitnessConflict as error:
            raise OwnershipLost("somebody was faster", domain=wanted.name) from error

    patch.setattr(Authority, "_change", once)


@dataclass(frozen=True)
class Case:
    """kind: of the fault. draw, seed: that found it last. says: how the violation begins."""

    defect: Callable[[Patch], None]
    kind: str
    draw: Callable[[int], Plan]
    seed: int
    says: str

    def others(self, plan: Plan) -> Plan:
        """The plan without this kind."""
        return replace(plan, faults=tuple(fault for fault in plan.faults if fault.kind != self.kind))

    def found(self, seed: int) -> bool:
        """Whether the defect shows under the plan of this seed, and is not shown by its other faults."""
        plan = self.draw(seed)
        if self.others(plan) == plan:
            return False
        said = simulate(plan)
        return said is not None and said.startswith(self.says) and simulate(self.others(plan)) is None


CASES = (
    Case(commits_behind, TEAR_COMMIT, plan_of, 28, "G1"),
    Case(checksum_unread, TEAR_COMMIT, plan_of, 4, "G6"),
    Case(notes_behind, TEAR_NOTE, plan_of, 84, "G5"),
    Case(any_acknowledgement, REPEAT, plan_of, 358, "G1"),
    Case(conflict_is_final, ASK_TWICE, plan_of, 377, "G5"),
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.defect.__name__)
def test_a_kind_of_fault_finds_what_the_others_of_its_plan_do_not(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.defect(monkeypatch)
    if case.found(case.seed):
        return
    assert any(case.found(seed) for seed in range(FOUND_WITHIN)), f"not found in {FOUND_WITHIN} seeds"


def test_every_defect_above_is_one() -> None:
    """Without it the plan that finds it holds."""
    for case in CASES:
        assert simulate(case.draw(case.seed)) is None
