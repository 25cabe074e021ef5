"""Life of one copy of a domain on its backup, as a table. One copy belongs to one session of the primary.

Nothing activates by itself: FAILOVER_ASKED comes from an operator with proof that the primary is dead.
"""

from __future__ import annotations

from enum import Enum

from remus_agent.machines.table import Row, Table


class State(Enum):
    """Where a copy stands. The value is the word users see."""

    RECEIVING = "receiving"
    READY = "ready"
    ORPHANED = "orphaned"
    ACTIVATING = "activating"
    ACTIVE = "active"
    DISCARDED = "discarded"


class Event(Enum):
    """What can happen to it."""

    EPOCH_COMPLETE = "an epoch arrived whole and its digest is right"
    CONNECTION_ENDED = "the connection to the primary ended, or broke the protocol"
    PEER_STOPS = "the primary ends protection in order"
    DISCARD_ASKED = "an operator discards the copy"
    SUPERSEDED = "a newer session of the same domain has committed"
    FAILOVER_ASKED = "an operator with proof of fencing activates the copy"
    COPY_BROKEN = "the toolstack process that holds the copy failed"
    ACTIVATED = "the domain runs here"
    DISKS_KEPT = "its disks could not be handed over"
    ACTIVATION_FAILED = "the toolstack could not finish the domain"


class Effect(Enum):
    """What the service carries out."""

    COMMIT = "write the commit record, acknowledge, apply"
    DROP_STAGED = "drop what arrived of the epoch after the last commit"
    ABORT = "destroy the copy"
    CONFIRM_STOPPED = "tell the primary that the copy is gone"
    ACTIVATE = "hand over its disks, then finish the stream, rename and unpause the domain, announce it"


_S, _E, _A = State, Event, Effect

TABLE: Table[State, Event, Effect] = Table(
    "backup",
    [
        Row(
            _S.RECEIVING,
            _E.EPOCH_COMPLETE,
            _S.READY,
            (_A.COMMIT,),
            "The first complete checkpoint: from now on it can take over.",
        ),
        Row(
            _S.RECEIVING,
            _E.CONNECTION_ENDED,
            _S.DISCARDED,
            (_A.ABORT,),
            "Nothing was committed: half a copy is worth nothing.",
        ),
        Row(
            _S.RECEIVING,
            _E.PEER_STOPS,
            _S.DISCARDED,
            (_A.ABORT, _A.CONFIRM_STOPPED),
            "Protection was called off while seeding.",
        ),
        Row(_S.RECEIVING, _E.DISCARD_ASKED, _S.DISCARDED, (_A.ABORT,), "An operator does not want this copy."),
        Row(
            _S.READY,
            _E.EPOCH_COMPLETE,
            _S.READY,
            (_A.COMMIT,),
            "One more epoch, committed before it is applied.",
        ),
        Row(
            _S.READY,
            _E.CONNECTION_ENDED,
            _S.ORPHANED,
            (_A.DROP_STAGED,),
            "The last commit stands; what came later is dropped.",
        ),
        Row(
            _S.RECEIVING,
            _E.COPY_BROKEN,
            _S.DISCARDED,
            (_A.ABORT,),
            "There is no domain any more that could take over.",
        ),
        Row(
            _S.READY,
            _E.COPY_BROKEN,
            _S.DISCARDED,
            (_A.ABORT,),
            "There is no domain any more that could take over.",
        ),
        Row(
            _S.READY,
            _E.PEER_STOPS,
            _S.DISCARDED,
            (_A.ABORT, _A.CONFIRM_STOPPED),
            "The primary runs on unprotected once we confirm.",
        ),
        Row(_S.READY, _E.DISCARD_ASKED, _S.DISCARDED, (_A.ABORT,), "An operator does not want this copy."),
        Row(
            _S.ORPHANED,
            _E.FAILOVER_ASKED,
            _S.ACTIVATING,
            (_A.ACTIVATE,),
            "The primary is proven dead: continue from the last commit.",
        ),
        Row(
            _S.ORPHANED,
            _E.SUPERSEDED,
            _S.DISCARDED,
            (_A.ABORT,),
            "The primary is back and has committed a newer copy.",
        ),
        Row(
            _S.ORPHANED,
            _E.PEER_STOPS,
            _S.DISCARDED,
            (_A.ABORT, _A.CONFIRM_STOPPED),
            "The primary is back and ends protection.",
        ),
        Row(_S.ORPHANED, _E.DISCARD_ASKED, _S.DISCARDED, (_A.ABORT,), "An operator does not want this copy."),
        Row(_S.ACTIVATING, _E.ACTIVATED, _S.ACTIVE, (), "This host runs the guest now."),
        Row(
            _S.ACTIVATING,
            _E.DISKS_KEPT,
            _S.ORPHANED,
            (),
            "Nothing was activated, the copy is whole: an operator can ask again.",
        ),
        Row(
            _S.ACTIVATING,
            _E.ACTIVATION_FAILED,
            _S.DISCARDED,
            (_A.ABORT,),
            "The toolstack has destroyed or must destroy the half-made domain.",
        ),
    ],
)

TERMINAL = frozenset({State.ACTIVE, State.DISCARDED})
