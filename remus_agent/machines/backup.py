"""Life of one copy of a domain on its backup, as a table. One copy belongs to one session of the primary.

Three ways lead to activation: FAILOVER_ASKED comes from an operator with proof that the primary is dead; PRIMARY_GONE, from a
detector or an operator, only asks the witness, and OWNERSHIP_WON is the witness's word; HANDED_OVER is
the primary's own word, in a switchover. A copy that the record has left behind is
STALE: kept, because it may be all that is left of the guest, and activated only by an operator who accepts the loss.
"""

from __future__ import annotations

from enum import Enum

from remus_agent.machines.table import Row, Table


class State(Enum):
    """Where a copy stands. The value is the word users see."""

    RECEIVING = "receiving"
    READY = "ready"
    ORPHANED = "orphaned"
    TAKING = "taking"
    STALE = "stale"
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
    HANDED_OVER = "the primary hands over: its guest is down, the last epoch committed here, its output released"
    LOSS_ACCEPTED = (
        "an operator with proof of fencing activates the copy, though clients may have been told more than it knows"
    )
    PRIMARY_GONE = "the primary seems to be gone, and the witness shall say whether this host may run the guest"
    OWNERSHIP_WON = "the witness confirms that this host owns the guest"
    OWNERSHIP_REFUSED = "the witness could not be asked, or has no word on this copy"
    STALE = "the record has moved on: the primary ran on without this copy"
    COPY_BROKEN = "the toolstack process that holds the copy failed"
    ACTIVATED = "the domain runs here"
    NOT_READY = "its disks could not be handed over, or it could not be noted that it runs"
    ACTIVATION_FAILED = "the toolstack could not finish the domain"


class Effect(Enum):
    """What the service carries out."""

    COMMIT = "write the commit record, acknowledge, apply"
    DROP_STAGED = "drop what arrived of the epoch after the last commit"
    ABORT = "destroy the copy"
    CONFIRM_STOPPED = "tell the primary that the copy is gone"
    ASK_WITNESS = "ask to be the owner, of the generation after the copy's"
    ACTIVATE = (
        "hand over its disks, finish the stream, note that it is about to run, rename and unpause it, announce it"
    )


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
        Row(
            _S.ORPHANED,
            _E.PRIMARY_GONE,
            _S.TAKING,
            (_A.ASK_WITNESS,),
            "From here on no session is taken in, so nothing newer can be committed elsewhere.",
        ),
        Row(
            _S.ORPHANED,
            _E.STALE,
            _S.STALE,
            (),
            "The guest ran on without it, or is given back to its primary. Kept until there is a newer one.",
        ),
        Row(
            _S.READY,
            _E.HANDED_OVER,
            _S.TAKING,
            (_A.ASK_WITNESS,),
            "A switchover. Without a witness the primary's word is the permission; with one it is not asked for a proof.",
        ),
        Row(_S.TAKING, _E.OWNERSHIP_WON, _S.ACTIVATING, (_A.ACTIVATE,), "Only this host may run the guest: continue."),
        Row(
            _S.TAKING,
            _E.OWNERSHIP_REFUSED,
            _S.ORPHANED,
            (),
            "For sure nothing was changed: the copy stands, sessions are taken in again.",
        ),
        Row(
            _S.TAKING,
            _E.STALE,
            _S.STALE,
            (),
            "The primary was first. Should it be lost, an operator may still want this.",
        ),
        Row(
            _S.STALE,
            _E.SUPERSEDED,
            _S.DISCARDED,
            (_A.ABORT,),
            "A newer copy is committed, or its room is needed for one.",
        ),
        Row(
            _S.STALE,
            _E.PEER_STOPS,
            _S.DISCARDED,
            (_A.ABORT, _A.CONFIRM_STOPPED),
            "The primary lives and ends protection.",
        ),
        Row(_S.STALE, _E.DISCARD_ASKED, _S.DISCARDED, (_A.ABORT,), "An operator does not want this copy."),
        Row(
            _S.STALE,
            _E.LOSS_ACCEPTED,
            _S.ACTIVATING,
            (_A.ACTIVATE,),
            "The primary is proven dead, and an operator knows that what it has told clients since is lost.",
        ),
        Row(_S.ACTIVATING, _E.ACTIVATED, _S.ACTIVE, (), "This host runs the guest now."),
        Row(
            _S.ACTIVATING,
            _E.NOT_READY,
            _S.ORPHANED,
            (),
            "Nothing was activated, the copy is whole: it can be asked for again.",
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
