"""Life of one protected domain on its primary, as a table, and where it begins. The words are those of `primary`."""

from __future__ import annotations

from remus_agent.machines.primary import END, HOLD, Effect, Event, State
from remus_agent.machines.primary_switchover_rows import switchover
from remus_agent.machines.primary_witness_rows import with_a_witness
from remus_agent.machines.table import Row, Table

_S, _E, _A = State, Event, Effect


def _until_free(state: State, then: State) -> list[Row[State, Event, Effect]]:
    """A state in which output is being let out, and how it is left."""
    again = (_A.FREE_OUTPUT,)
    return [
        Row(state, _E.OUTPUT_FREE, then, (_A.FORGET,), "The guest is as it was before its protection."),
        Row(state, _E.OUTPUT_HELD, state, (_A.WAIT_FOR_RETRY,), "Forgetting it now would hold its output for ever."),
        Row(state, _E.RETRY_DUE, state, again, "Whatever was in the way may be gone."),
        Row(state, _E.STOP_ASKED, state, again, "It ends already: try at once."),
        Row(state, _E.STOP_FORCED, state, again, "It ends already: try at once."),
        Row(state, _E.RETIRE_ASKED, state, again, "It ends already: try at once."),
    ]


TABLE: Table[State, Event, Effect] = Table(
    "primary",
    [
        Row(_S.CONNECTING, _E.SESSION_OPENED, _S.SEEDING, (_A.SEED,), "The backup is willing: copy the guest."),
        Row(
            _S.CONNECTING,
            _E.SESSION_LOST,
            _S.FAILING,
            END,
            "Nothing was promised yet: the guest runs on as before.",
        ),
        Row(_S.CONNECTING, _E.STOP_ASKED, _S.FREEING, END, "Nothing was promised yet."),
        Row(_S.CONNECTING, _E.STOP_FORCED, _S.FREEING, END, "Nothing was promised yet."),
        Row(_S.CONNECTING, _E.GUEST_ENDED, _S.FREEING, END, "There is nothing left to protect."),
        Row(
            _S.SEEDING,
            _E.COMMITTED,
            _S.PROTECTED,
            (_A.REGISTER, _A.RUN_EPOCHS),
            "The backup holds a complete copy: epochs begin.",
        ),
        Row(
            _S.SEEDING,
            _E.SESSION_LOST,
            _S.FAILING,
            END,
            "No copy was committed: the guest runs on as before.",
        ),
        Row(
            _S.SEEDING,
            _E.COMMIT_UNCERTAIN,
            _S.SILENT,
            HOLD,
            "The backup may have committed without our hearing of it.",
        ),
        Row(_S.SEEDING, _E.STOP_ASKED, _S.FREEING, END, "No copy was committed; the backup drops its half."),
        Row(_S.SEEDING, _E.STOP_FORCED, _S.FREEING, END, "No copy was committed; the backup drops its half."),
        Row(_S.SEEDING, _E.GUEST_ENDED, _S.FREEING, END, "There is nothing left to protect."),
        Row(
            _S.PROTECTED,
            _E.SESSION_LOST,
            _S.SILENT,
            HOLD,
            "The copy may be activated: hold output, try again.",
        ),
        Row(
            _S.PROTECTED,
            _E.STOP_ASKED,
            _S.STOPPING,
            (_A.DISCARD_COPY,),
            "First the copy must be gone, then output may flow.",
        ),
        Row(
            _S.PROTECTED,
            _E.STOP_FORCED,
            _S.STOPPING,
            (_A.DISCARD_COPY,),
            "The backup is there: let it confirm all the same.",
        ),
        Row(
            _S.PROTECTED,
            _E.GUEST_ENDED,
            _S.STOPPING,
            (_A.DISCARD_COPY,),
            "A guest that ended must not come back by failover.",
        ),
        Row(_S.SILENT, _E.RETRY_DUE, _S.RECONNECTING, (_A.OPEN_SESSION,), "Look for the backup again."),
        Row(_S.SILENT, _E.STOP_FORCED, _S.FREEING, END, "An operator vouches that the copy is gone."),
        Row(
            _S.SILENT,
            _E.STOP_ASKED,
            _S.SILENT,
            (_A.WAIT_FOR_RETRY,),
            "Refused: nobody can confirm that the copy is gone.",
        ),
        Row(
            _S.SILENT,
            _E.GUEST_ENDED,
            _S.FREEING,
            END,
            "The guest is gone here; its copy waits for an operator.",
        ),
        Row(
            _S.RECONNECTING,
            _E.SESSION_OPENED,
            _S.RESEEDING,
            (_A.SEED,),
            "A new session begins with a full resend, output held.",
        ),
        Row(
            _S.RECONNECTING,
            _E.SESSION_LOST,
            _S.SILENT,
            HOLD,
            "Still no backup: the old copy may be activated.",
        ),
        Row(_S.RECONNECTING, _E.STOP_FORCED, _S.FREEING, END, "An operator vouches that the copy is gone."),
        Row(
            _S.RECONNECTING,
            _E.STOP_ASKED,
            _S.SILENT,
            HOLD,
            "Refused: nobody can confirm that the copy is gone.",
        ),
        Row(
            _S.RECONNECTING,
            _E.GUEST_ENDED,
            _S.FREEING,
            END,
            "The guest is gone here; its copy waits for an operator.",
        ),
        Row(
            _S.RESEEDING, _E.COMMITTED, _S.PROTECTED, (_A.REGISTER, _A.RUN_EPOCHS), "The new copy replaces the old one."
        ),
        Row(_S.RESEEDING, _E.SESSION_LOST, _S.SILENT, HOLD, "The old copy may still be activated."),
        Row(
            _S.RESEEDING,
            _E.COMMIT_UNCERTAIN,
            _S.SILENT,
            HOLD,
            "The old copy or the new one may be activated.",
        ),
        Row(
            _S.RESEEDING,
            _E.STOP_ASKED,
            _S.STOPPING,
            (_A.DISCARD_COPY,),
            "The backup discards the old copy and the new half.",
        ),
        Row(
            _S.RESEEDING,
            _E.STOP_FORCED,
            _S.STOPPING,
            (_A.DISCARD_COPY,),
            "The backup is there: let it confirm all the same.",
        ),
        Row(
            _S.RESEEDING,
            _E.GUEST_ENDED,
            _S.STOPPING,
            (_A.DISCARD_COPY,),
            "A guest that ended must not come back by failover.",
        ),
        Row(
            _S.STOPPING,
            _E.COPY_DISCARDED,
            _S.FREEING,
            END,
            "Only this host can run the guest now: let its output out.",
        ),
        Row(_S.STOPPING, _E.SESSION_LOST, _S.SILENT, HOLD, "No confirmation: the copy may be activated."),
        *with_a_witness(),
        *switchover(),
        *_until_free(_S.FREEING, _S.STOPPED),
        *_until_free(_S.FAILING, _S.FAILED),
    ],
)

STARTED_FRESH = (State.CONNECTING, (Effect.OPEN_SESSION,))
"""A protection that an operator asked for just now."""

STARTED_AGAIN = (State.RECONNECTING, (Effect.OPEN_SESSION,))
"""A protection that was committed before the agent was restarted: output stays held until the new commit."""

STARTED_SOLO = (State.SOLO, (Effect.OPEN_OUTPUT, Effect.WAIT_FOR_RETRY))
"""A guest that this host owns alone, after a takeover or because its agent was restarted while it was so. The agent before may
have died when it had become the sole owner, by a change of its own, and had not opened the output yet."""

STARTED_STOOD_DOWN = (State.STANDING_DOWN, (Effect.PAUSE_GUEST,))
"""A guest that an earlier agent has paused, or was about to, because another host owns it."""

STARTED_UNFINISHED = (State.STARTING, (Effect.BECOME_SOLE_OWNER,))
"""A guest that an earlier agent has built from a copy and noted that it is about to run; it is paused."""

STARTED_IN_DOUBT = (State.IN_DOUBT, (Effect.ASK_OUTCOME,))
"""A guest that an earlier agent has handed over, or was about to."""
