"""What to do with a disk when it is opened: a decision from its state, its slots, the last commit and its device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from remus_agent.adapters.disk.identity import Match
from remus_agent.adapters.disk.slots import Slot, State
from remus_agent.store_ports import CommitRecord


@dataclass(frozen=True, slots=True)
class Decision:
    """replay: the slots to apply, in order; the last one must be whole. problem: why the disk cannot be activated; None when
    it can once `replay` is applied. map_valid: the state's map names everything in which the disk can differ."""

    replay: tuple[Slot, ...] = ()
    problem: str | None = None
    map_valid: bool = False


MISSING = "its journal does not hold the committed epoch whole"


OTHER_DEVICE = "its journal was written for another device: this one was replaced, and has nothing of the copy"


def decide(state: State, slots: Sequence[Slot], committed: CommitRecord | None, device: Match) -> Decision:
    """The commit record alone says what is committed. device: whether it is the one that the state is about.

    On another device nothing that the journal says is so. When that is not known, it is a copy as far as the journal goes; but
    what differs is not left to the map.
    """
    if device is Match.OTHER:
        return Decision(problem=OTHER_DEVICE)
    decision = _decide(state, slots, committed)
    return decision if device is Match.SAME else replace(decision, map_valid=False)


def _decide(state: State, slots: Sequence[Slot], committed: CommitRecord | None) -> Decision:
    """Slots of another session are never applied. Nor is anything applied to a disk that a guest has had since, or that was
    seeded by a session which did not commit: what is in the slots is older than what is on the disk.
    """
    if state.handed_over:
        return Decision(problem="it was handed over to a guest before, and no session has committed since")
    # Whether an epoch in a slot was committed is not known when the record of commits is gone or of another session.
    unsure = any(slot.session == state.session for slot in slots)
    if committed is None:
        return Decision(problem="nothing was committed", map_valid=not unsure)
    floor = _floor(state, committed)
    if floor is None and state.seeding:
        return Decision(problem=f"it was seeded by session {state.session}, which did not commit", map_valid=not unsure)
    if floor is None:
        return Decision(problem=f"its journal knows nothing of the committed session {committed.session}")
    return _replay(floor, slots, committed)


def _floor(state: State, committed: CommitRecord) -> int | None:
    """The epoch of the committed session that the device is known to be at; None when it has nothing of it."""
    if state.base is not None and state.base.session == committed.session:
        return state.base.epoch
    return 0 if state.session == committed.session else None


def _replay(floor: int, slots: Sequence[Slot], committed: CommitRecord) -> Decision:
    if floor > committed.epoch:
        return Decision(problem=f"it is at epoch {floor}, later than the last commit, which is of {committed.epoch}")
    replay = tuple(
        sorted(
            (slot for slot in slots if slot.session == committed.session and floor < slot.epoch <= committed.epoch),
            key=lambda slot: slot.epoch,
        )
    )
    if floor < committed.epoch and (not replay or replay[-1].epoch != committed.epoch):
        return Decision(problem=MISSING)
    return Decision(replay, map_valid=True)
