"""Life of one protected domain on its primary, as a table.

Two families of states that differ in one thing: whether a backup may hold a committed copy. Before the first commit
(CONNECTING, SEEDING) nothing was promised, so a failure simply ends the attempt. After it (PROTECTED and the *silent*
states) the copy may be activated by someone, so output stays held until a new commit, or until an operator vouches
that the copy is gone. Protection has not ended before the guest's output is free again (FREEING, FAILING).

With a witness there are two more ways out of the silence: to be the sole owner (GOING_SOLO, then SOLO: output open, the backup
is looked for), or to learn that another host owns the guest (STANDING_DOWN, then STOOD_DOWN: the guest is paused, because it may
be the only image that there is). Without one, none of these events happens.

A switchover is a last epoch after which the guest is not resumed (SWITCHING). Up to the hand-over it can be called off: the guest
is resumed. From the hand-over on (HANDED, IN_DOUBT) the guest here stays down until the backup, or the witness, has said which
of the two runs.

A guest that an earlier agent was about to run from a copy is finished here (STARTING): it is built, paused, and runs as soon as a
change of the record confirms that this host is its owner.
"""

from __future__ import annotations

from enum import Enum

from remus_agent.machines.table import Row, Table


class State(Enum):
    """Where the protection of a domain stands on its primary. The value is the word of events; `services/report.py` has
    the fewer words of the status."""

    CONNECTING = "connecting"
    SEEDING = "seeding"
    PROTECTED = "protected"
    SILENT = "silent"
    RECONNECTING = "reconnecting"
    RESEEDING = "reseeding"
    STOPPING = "stopping"
    FREEING = "freeing"
    FAILING = "failing"
    GOING_SOLO = "going-solo"
    SOLO = "solo"
    SEEKING = "seeking"
    REPROTECTING = "reprotecting"
    RETIRING = "retiring"
    STANDING_DOWN = "standing-down"
    STOOD_DOWN = "stood-down"
    RETURNING = "returning"
    GIVING_UP = "giving-up"
    STARTING = "starting"
    SWITCHING = "switching"
    HANDED = "handed-over"
    IN_DOUBT = "in-doubt"
    DEPARTING = "departing"
    DEPARTED = "departed"
    STOPPED = "stopped"
    FAILED = "failed"
    GIVEN_UP = "given-up"


class Event(Enum):
    """What can happen to it."""

    SESSION_OPENED = "the backup agreed to a session"
    COMMITTED = "the first epoch of the session is acknowledged"
    SESSION_LOST = "the session failed"
    COMMIT_UNCERTAIN = "the session failed after its first epoch was sent and before it was acknowledged"
    RETRY_DUE = "time to try again"
    STOP_ASKED = "an operator ends protection"
    STOP_FORCED = "an operator ends protection and vouches that the copy is gone"
    COPY_DISCARDED = "the backup confirms that its copy is gone"
    OUTPUT_FREE = "nothing is held any more and the plugs are gone"
    OUTPUT_HELD = "the plugs could not be taken away"
    SOLO_DUE = "the backup has not been heard for longer than the guest bears to be silent"
    RETIRE_ASKED = "an operator ends protection, and the witness can say that no copy may be activated"
    SOLE_OWNER = "the witness confirms that only this host may run the guest"
    WITNESS_SILENT = "the witness could not be asked, or its answer is not known"
    ANOTHER_OWNS = "another host owns the guest"
    GUEST_PAUSED = "the guest is paused here, and what it had sent was dropped"
    GUEST_NOT_PAUSED = "the guest could not be paused here, or what it had sent not be dropped"
    OWNER_RUNS = "the new owner has opened a session: it runs the guest"
    HANDED_BACK = "the new owner never ran the guest, has lost its copy, and made this host the owner again"
    GUEST_RESUMED = "the guest runs on here, its output held"
    RESUME_FAILED = "the guest could not be made to run on here"
    STALE_GUEST_GONE = "the guest was destroyed here, and what it had sent was dropped"
    STALE_GUEST_STANDS = "the guest could not be destroyed here"
    GUEST_ENDED = "the guest shut down, rebooted or crashed by itself"
    SWITCHOVER_ASKED = "an operator moves the guest to its backup"
    LAST_COMMITTED = "the last epoch is acknowledged and its output released; the guest is still down"
    TAKEN_OVER = "the backup says that it runs the guest"
    DECLINED = (
        "nothing was handed over, or the backup says that it does not run the guest and will not by this hand-over"
    )
    OUTCOME_UNKNOWN = "nobody can say whether the backup runs the guest"
    GUEST_GONE = "the guest that was handed over was destroyed here"
    GUEST_STANDS = "the guest that was handed over could not be destroyed here"


class Effect(Enum):
    """What the service carries out."""

    OPEN_SESSION = "connect, hello, preamble"
    SEED = "copy all memory, then take the first checkpoint and wait for its acknowledgement"
    RUN_EPOCHS = "checkpoint after checkpoint"
    ABANDON_SESSION = "close the connection and the checkpoint source; the plugs stay as they are"
    WAIT_FOR_RETRY = "wait the retry delay"
    DISCARD_COPY = "ask the backup to discard its copy and wait for its word"
    FREE_OUTPUT = "let out what is held and take the plugs away"
    REGISTER = "have the backup named in the witness, beside everything else"
    BECOME_SOLE_OWNER = "ask the witness that only this host may run the guest"
    OPEN_OUTPUT = "let out what is held and hold nothing any more; the plugs stay in place"
    PAUSE_GUEST = "pause the guest, drop what it has sent, hold what comes"
    AWAIT_OWNER = "wait for the new owner's session; look whether the record gives the guest back"
    TAKE_BACK = "let the guest run on that was paused for another owner, its output held"
    DESTROY_STALE_GUEST = "destroy the guest, drop what it has sent"
    START_GUEST = "let the guest run that an earlier agent has built from a copy, and announce it"
    FORGET = "forget the durable record of the protection"
    TAKE_LAST = "take the last epoch, leave the guest down, wait for its acknowledgements and release its output"
    HAND_OVER = "note durably that it is handed over, then tell the backup, once, and wait for its word"
    ASK_OUTCOME = "ask the witness, or the backup, what has become of the hand-over"
    RESUME_GUEST = "let the guest run again that is down for its last epoch, and take back the durable note"
    DESTROY_HANDED = "destroy the guest that runs on the backup by now"


_S, _E, _A = State, Event, Effect
_END = (_A.ABANDON_SESSION, _A.FREE_OUTPUT)
_HOLD = (_A.ABANDON_SESSION, _A.WAIT_FOR_RETRY)
_STAND_DOWN = (_A.ABANDON_SESSION, _A.PAUSE_GUEST)


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


def _with_a_witness() -> list[Row[State, Event, Effect]]:
    """The ways out of the silence, and the life of a guest that runs on without a backup."""
    alone = (_A.ABANDON_SESSION, _A.BECOME_SOLE_OWNER)
    run_on = (_A.OPEN_OUTPUT, _A.WAIT_FOR_RETRY)
    lost = "The backup has taken over: what this guest does is known to nobody."
    return [
        Row(_S.SILENT, _E.SOLO_DUE, _S.GOING_SOLO, alone, "Its clients have waited long enough: ask to run on alone."),
        Row(_S.GOING_SOLO, _E.SOLE_OWNER, _S.SOLO, run_on, "No copy may be activated any more: let its output out."),
        Row(
            _S.GOING_SOLO,
            _E.WITNESS_SILENT,
            _S.RECONNECTING,
            (_A.OPEN_SESSION,),
            "Nobody knows who owns it: output stays held. The backup may be there again.",
        ),
        Row(_S.GOING_SOLO, _E.ANOTHER_OWNS, _S.STANDING_DOWN, _STAND_DOWN, lost),
        Row(_S.SOLO, _E.RETRY_DUE, _S.SEEKING, (_A.OPEN_SESSION,), "Look for a backup; output stays open."),
        Row(
            _S.SOLO,
            _E.STOP_ASKED,
            _S.FREEING,
            _END,
            "No copy may be activated: there is only the plumbing to take away.",
        ),
        Row(
            _S.SOLO,
            _E.STOP_FORCED,
            _S.FREEING,
            _END,
            "No copy may be activated: there is only the plumbing to take away.",
        ),
        Row(_S.SOLO, _E.GUEST_ENDED, _S.FREEING, _END, "There is nothing left to protect."),
        Row(_S.SEEKING, _E.SESSION_OPENED, _S.REPROTECTING, (_A.SEED,), "A backup is willing: copy the guest."),
        Row(
            _S.SEEKING,
            _E.SESSION_LOST,
            _S.SOLO,
            (_A.ABANDON_SESSION, *run_on),
            "Still no backup: it runs on unprotected. Output that could not be opened before is opened now.",
        ),
        Row(_S.SEEKING, _E.STOP_ASKED, _S.FREEING, _END, "No copy may be activated."),
        Row(_S.SEEKING, _E.STOP_FORCED, _S.FREEING, _END, "No copy may be activated."),
        Row(_S.SEEKING, _E.ANOTHER_OWNS, _S.STANDING_DOWN, _STAND_DOWN, lost),
        Row(_S.SEEKING, _E.GUEST_ENDED, _S.FREEING, _END, "There is nothing left to protect."),
        Row(_S.REPROTECTING, _E.COMMITTED, _S.PROTECTED, (_A.REGISTER, _A.RUN_EPOCHS), "Protected again."),
        Row(
            _S.REPROTECTING,
            _E.SESSION_LOST,
            _S.SOLO,
            (_A.ABANDON_SESSION, *run_on),
            "No epoch was sent whole: nothing can have been committed, and no copy may be activated.",
        ),
        Row(
            _S.REPROTECTING,
            _E.COMMIT_UNCERTAIN,
            _S.SILENT,
            _HOLD,
            "The backup may have committed without our hearing of it.",
        ),
        Row(_S.REPROTECTING, _E.STOP_ASKED, _S.FREEING, _END, "No copy was committed; the backup drops its half."),
        Row(_S.REPROTECTING, _E.STOP_FORCED, _S.FREEING, _END, "No copy was committed; the backup drops its half."),
        Row(_S.REPROTECTING, _E.ANOTHER_OWNS, _S.STANDING_DOWN, _STAND_DOWN, lost),
        Row(_S.REPROTECTING, _E.GUEST_ENDED, _S.FREEING, _END, "There is nothing left to protect."),
        Row(_S.SILENT, _E.RETIRE_ASKED, _S.RETIRING, alone, "The backup can't be asked, the witness can."),
        Row(_S.RECONNECTING, _E.RETIRE_ASKED, _S.RETIRING, alone, "The backup can't be asked, the witness can."),
        Row(_S.RETIRING, _E.SOLE_OWNER, _S.FREEING, _END, "No copy may be activated any more."),
        Row(_S.RETIRING, _E.WITNESS_SILENT, _S.SILENT, _HOLD, "Nobody can say that the copy will not be activated."),
        Row(_S.RETIRING, _E.ANOTHER_OWNS, _S.STANDING_DOWN, _STAND_DOWN, lost),
        *(
            Row(state, _E.ANOTHER_OWNS, _S.STANDING_DOWN, _STAND_DOWN, lost)
            for state in (_S.PROTECTED, _S.RECONNECTING, _S.RESEEDING, _S.CONNECTING, _S.SEEDING, _S.FREEING)
        ),
        *(
            Row(
                state,
                _E.RETIRE_ASKED,
                _S.STOPPING,
                (_A.DISCARD_COPY,),
                "It asked in silence, and the backup is there again.",
            )
            for state in (_S.PROTECTED, _S.RESEEDING)
        ),
        *(
            Row(state, _E.RETIRE_ASKED, _S.FREEING, _END, "It asked in silence; by now no copy may be activated.")
            for state in (_S.SOLO, _S.SEEKING, _S.REPROTECTING)
        ),
        *_stood_down(),
        *_starting(),
    ]


def _starting() -> list[Row[State, Event, Effect]]:
    """A guest that an earlier agent took over and was about to run: it is built here, paused, and that is noted."""
    ask = (_A.BECOME_SOLE_OWNER,)
    return [
        Row(
            _S.STARTING,
            _E.SOLE_OWNER,
            _S.SOLO,
            (_A.START_GUEST, _A.OPEN_OUTPUT, _A.WAIT_FOR_RETRY),
            "A change of its own, not only what was noted: now it may run, its output open.",
        ),
        Row(
            _S.STARTING,
            _E.WITNESS_SILENT,
            _S.STARTING,
            (_A.WAIT_FOR_RETRY,),
            "Nobody knows whether it is still the owner: the guest stays paused.",
        ),
        Row(
            _S.STARTING,
            _E.ANOTHER_OWNS,
            _S.STANDING_DOWN,
            _STAND_DOWN,
            "It has been taken from this host meanwhile: it stays paused.",
        ),
        Row(_S.STARTING, _E.RETRY_DUE, _S.STARTING, ask, "The witness may be there again."),
        *(
            Row(_S.STARTING, event, _S.STARTING, ask, "Refused: it may be the only one there is. Ask at once.")
            for event in (_E.STOP_ASKED, _E.RETIRE_ASKED)
        ),
        Row(
            _S.STARTING,
            _E.STOP_FORCED,
            _S.GIVING_UP,
            (_A.DESTROY_STALE_GUEST,),
            "An operator does not want the guest that never ran here.",
        ),
    ]


def _stood_down() -> list[Row[State, Event, Effect]]:
    """The life of a guest that another host owns: paused, until it is known that the other one runs it."""
    destroy = (_A.DESTROY_STALE_GUEST,)
    wait = (_A.AWAIT_OWNER,)
    return [
        Row(
            _S.STANDING_DOWN,
            _E.GUEST_PAUSED,
            _S.STOOD_DOWN,
            wait,
            "The new owner may lose its copy before it runs it: then this is the only image of the guest.",
        ),
        Row(
            _S.STANDING_DOWN,
            _E.GUEST_NOT_PAUSED,
            _S.STANDING_DOWN,
            (_A.WAIT_FOR_RETRY,),
            "It must not run: its output is held as long as it does.",
        ),
        *(
            Row(_S.STANDING_DOWN, event, _S.STANDING_DOWN, (_A.PAUSE_GUEST,), "Try again at once.")
            for event in (_E.RETRY_DUE, _E.STOP_ASKED, _E.RETIRE_ASKED)
        ),
        Row(_S.STANDING_DOWN, _E.OWNER_RUNS, _S.GIVING_UP, destroy, "The other one runs it: nobody needs this one."),
        *(
            Row(state, _E.STOP_FORCED, _S.GIVING_UP, destroy, "An operator does not want the paused guest.")
            for state in (_S.STANDING_DOWN, _S.STOOD_DOWN)
        ),
        *(
            Row(state, _E.GUEST_ENDED, _S.GIVING_UP, destroy, "Somebody has destroyed it: what it had sent is dropped.")
            for state in (_S.STANDING_DOWN, _S.STOOD_DOWN, _S.RETURNING)
        ),
        Row(_S.STOOD_DOWN, _E.OWNER_RUNS, _S.GIVING_UP, destroy, "The other one runs it: nobody needs this one."),
        Row(_S.STOOD_DOWN, _E.RETRY_DUE, _S.STOOD_DOWN, wait, "Nothing new: nobody has shown that it runs the guest."),
        *(
            Row(_S.STOOD_DOWN, event, _S.STOOD_DOWN, wait, "Refused: the paused guest may be the only one there is.")
            for event in (_E.STOP_ASKED, _E.RETIRE_ASKED)
        ),
        Row(
            _S.STOOD_DOWN,
            _E.HANDED_BACK,
            _S.RETURNING,
            (_A.TAKE_BACK,),
            "No other host has ever run it since: it may go on, its output held.",
        ),
        Row(
            _S.RETURNING,
            _E.GUEST_RESUMED,
            _S.GOING_SOLO,
            (_A.BECOME_SOLE_OWNER,),
            "That it owns the guest is only read so far: a change of its own has to come before its output opens.",
        ),
        Row(
            _S.RETURNING, _E.RESUME_FAILED, _S.STANDING_DOWN, (_A.PAUSE_GUEST,), "Begin anew: it runs, or it is paused."
        ),
        Row(_S.GIVING_UP, _E.STALE_GUEST_GONE, _S.GIVEN_UP, (_A.FORGET,), "This host can be a backup of it now."),
        Row(
            _S.GIVING_UP,
            _E.STALE_GUEST_STANDS,
            _S.GIVING_UP,
            (_A.WAIT_FOR_RETRY,),
            "It must not stay: its output is held as long as it does.",
        ),
        *(
            Row(_S.GIVING_UP, event, _S.GIVING_UP, destroy, "Try again at once.")
            for event in (_E.RETRY_DUE, _E.STOP_ASKED, _E.STOP_FORCED, _E.RETIRE_ASKED)
        ),
    ]


def _switchover() -> list[Row[State, Event, Effect]]:
    """A guest that moves to its backup on an operator's word."""
    back = (_A.RESUME_GUEST, *_HOLD)
    return [
        Row(
            _S.PROTECTED,
            _E.SWITCHOVER_ASKED,
            _S.SWITCHING,
            (_A.TAKE_LAST,),
            "One more epoch, and the guest stays down.",
        ),
        Row(
            _S.SWITCHING,
            _E.LAST_COMMITTED,
            _S.HANDED,
            (_A.HAND_OVER,),
            "The backup has everything, its clients have heard everything: nothing is lost whoever goes on.",
        ),
        Row(
            _S.SWITCHING,
            _E.SESSION_LOST,
            _S.SILENT,
            back,
            "Nothing was handed over: the guest goes on here, its output held, and the backup is looked for.",
        ),
        Row(_S.SWITCHING, _E.GUEST_ENDED, _S.STOPPING, (_A.DISCARD_COPY,), "It must not come back by failover."),
        Row(
            _S.SWITCHING,
            _E.ANOTHER_OWNS,
            _S.STANDING_DOWN,
            _STAND_DOWN,
            "The backup was faster, by the witness's word.",
        ),
        Row(_S.HANDED, _E.TAKEN_OVER, _S.DEPARTING, (_A.ABANDON_SESSION, _A.DESTROY_HANDED), "It runs over there."),
        Row(_S.HANDED, _E.DECLINED, _S.SILENT, back, "It does not run over there: it goes on here."),
        Row(
            _S.HANDED,
            _E.SESSION_LOST,
            _S.IN_DOUBT,
            (_A.ABANDON_SESSION, _A.ASK_OUTCOME),
            "The backup may run it: it stays down here until somebody knows.",
        ),
        Row(_S.IN_DOUBT, _E.TAKEN_OVER, _S.DEPARTING, (_A.DESTROY_HANDED,), "It runs over there."),
        Row(_S.IN_DOUBT, _E.DECLINED, _S.SILENT, back, "It does not run over there: it goes on here."),
        Row(
            _S.IN_DOUBT,
            _E.SOLE_OWNER,
            _S.SOLO,
            (_A.RESUME_GUEST, _A.OPEN_OUTPUT, _A.WAIT_FOR_RETRY),
            "By the witness's word nobody else may run it any more.",
        ),
        Row(
            _S.IN_DOUBT,
            _E.ANOTHER_OWNS,
            _S.STANDING_DOWN,
            _STAND_DOWN,
            "The backup owns it, by the witness's word, and may lose its copy before it runs it.",
        ),
        Row(
            _S.IN_DOUBT,
            _E.HANDED_BACK,
            _S.RETURNING,
            (_A.TAKE_BACK,),
            "The backup owned it and never ran it: it may go on here, its output held.",
        ),
        Row(_S.IN_DOUBT, _E.OUTCOME_UNKNOWN, _S.IN_DOUBT, (_A.WAIT_FOR_RETRY,), "Ask again later."),
        Row(_S.IN_DOUBT, _E.RETRY_DUE, _S.IN_DOUBT, (_A.ASK_OUTCOME,), "The backup may be there again."),
        Row(
            _S.IN_DOUBT,
            _E.STOP_FORCED,
            _S.FREEING,
            (_A.RESUME_GUEST, *_END),
            "An operator vouches that the backup does not run it.",
        ),
        *(
            Row(_S.IN_DOUBT, event, _S.IN_DOUBT, (_A.ASK_OUTCOME,), "Asked before the doubt: that comes first.")
            for event in (_E.STOP_ASKED, _E.RETIRE_ASKED)
        ),
        Row(_S.DEPARTING, _E.GUEST_GONE, _S.DEPARTED, (_A.FORGET,), "This host can be a backup of it now."),
        Row(_S.DEPARTING, _E.GUEST_STANDS, _S.DEPARTING, (_A.WAIT_FOR_RETRY,), "It is down, but it must not stay."),
        *(
            Row(_S.DEPARTING, event, _S.DEPARTING, (_A.DESTROY_HANDED,), "Try again at once.")
            for event in (_E.RETRY_DUE, _E.STOP_ASKED, _E.STOP_FORCED, _E.RETIRE_ASKED)
        ),
    ]


TABLE: Table[State, Event, Effect] = Table(
    "primary",
    [
        Row(_S.CONNECTING, _E.SESSION_OPENED, _S.SEEDING, (_A.SEED,), "The backup is willing: copy the guest."),
        Row(
            _S.CONNECTING,
            _E.SESSION_LOST,
            _S.FAILING,
            _END,
            "Nothing was promised yet: the guest runs on as before.",
        ),
        Row(_S.CONNECTING, _E.STOP_ASKED, _S.FREEING, _END, "Nothing was promised yet."),
        Row(_S.CONNECTING, _E.STOP_FORCED, _S.FREEING, _END, "Nothing was promised yet."),
        Row(_S.CONNECTING, _E.GUEST_ENDED, _S.FREEING, _END, "There is nothing left to protect."),
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
            _END,
            "No copy was committed: the guest runs on as before.",
        ),
        Row(
            _S.SEEDING,
            _E.COMMIT_UNCERTAIN,
            _S.SILENT,
            _HOLD,
            "The backup may have committed without our hearing of it.",
        ),
        Row(_S.SEEDING, _E.STOP_ASKED, _S.FREEING, _END, "No copy was committed; the backup drops its half."),
        Row(_S.SEEDING, _E.STOP_FORCED, _S.FREEING, _END, "No copy was committed; the backup drops its half."),
        Row(_S.SEEDING, _E.GUEST_ENDED, _S.FREEING, _END, "There is nothing left to protect."),
        Row(
            _S.PROTECTED,
            _E.SESSION_LOST,
            _S.SILENT,
            _HOLD,
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
        Row(_S.SILENT, _E.STOP_FORCED, _S.FREEING, _END, "An operator vouches that the copy is gone."),
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
            _END,
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
            _HOLD,
            "Still no backup: the old copy may be activated.",
        ),
        Row(_S.RECONNECTING, _E.STOP_FORCED, _S.FREEING, _END, "An operator vouches that the copy is gone."),
        Row(
            _S.RECONNECTING,
            _E.STOP_ASKED,
            _S.SILENT,
            _HOLD,
            "Refused: nobody can confirm that the copy is gone.",
        ),
        Row(
            _S.RECONNECTING,
            _E.GUEST_ENDED,
            _S.FREEING,
            _END,
            "The guest is gone here; its copy waits for an operator.",
        ),
        Row(
            _S.RESEEDING, _E.COMMITTED, _S.PROTECTED, (_A.REGISTER, _A.RUN_EPOCHS), "The new copy replaces the old one."
        ),
        Row(_S.RESEEDING, _E.SESSION_LOST, _S.SILENT, _HOLD, "The old copy may still be activated."),
        Row(
            _S.RESEEDING,
            _E.COMMIT_UNCERTAIN,
            _S.SILENT,
            _HOLD,
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
            _END,
            "Only this host can run the guest now: let its output out.",
        ),
        Row(_S.STOPPING, _E.SESSION_LOST, _S.SILENT, _HOLD, "No confirmation: the copy may be activated."),
        *_with_a_witness(),
        *_switchover(),
        *_until_free(_S.FREEING, _S.STOPPED),
        *_until_free(_S.FAILING, _S.FAILED),
    ],
)

STARTED_FRESH = (State.CONNECTING, (Effect.OPEN_SESSION,))
"""A protection that an operator asked for just now."""

STARTED_AGAIN = (State.RECONNECTING, (Effect.OPEN_SESSION,))
"""A protection that was committed before the agent was restarted: output stays held until the new commit."""

STARTED_SOLO = (State.SOLO, (Effect.WAIT_FOR_RETRY,))
"""A guest that this host owns alone, after a takeover or because its agent was restarted while it was so."""

STARTED_STOOD_DOWN = (State.STANDING_DOWN, (Effect.PAUSE_GUEST,))
"""A guest that an earlier agent has paused, or was about to, because another host owns it."""

STARTED_UNFINISHED = (State.STARTING, (Effect.BECOME_SOLE_OWNER,))
"""A guest that an earlier agent has built from a copy and noted that it is about to run; it is paused."""

STARTED_IN_DOUBT = (State.IN_DOUBT, (Effect.ASK_OUTCOME,))
"""A guest that an earlier agent has handed over, or was about to."""

HELD = frozenset({State.SILENT, State.RECONNECTING, State.GOING_SOLO, State.RETIRING, State.RETURNING, State.IN_DOUBT})
"""Output is held, and no session runs."""

NOT_OURS = frozenset({State.STANDING_DOWN, State.STOOD_DOWN, State.GIVING_UP})
"""Another host owns the guest, and may open a session."""

ALONE = frozenset({State.SOLO, State.SEEKING, State.REPROTECTING})
"""The guest runs without a backup, its output open."""

TERMINAL = frozenset({State.STOPPED, State.FAILED, State.GIVEN_UP, State.DEPARTED})
