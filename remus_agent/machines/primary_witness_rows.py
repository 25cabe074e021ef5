"""The part of a primary's table that needs a witness: to run on alone, to stand down, to finish what a dead agent began."""

from __future__ import annotations

from remus_agent.machines.primary import END, HOLD, STAND_DOWN, Effect, Event, State
from remus_agent.machines.table import Row

_S, _E, _A = State, Event, Effect


def with_a_witness() -> list[Row[State, Event, Effect]]:
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
        Row(_S.GOING_SOLO, _E.ANOTHER_OWNS, _S.STANDING_DOWN, STAND_DOWN, lost),
        Row(_S.SOLO, _E.RETRY_DUE, _S.SEEKING, (_A.OPEN_SESSION,), "Look for a backup; output stays open."),
        Row(
            _S.SOLO,
            _E.STOP_ASKED,
            _S.FREEING,
            END,
            "No copy may be activated: there is only the plumbing to take away.",
        ),
        Row(
            _S.SOLO,
            _E.STOP_FORCED,
            _S.FREEING,
            END,
            "No copy may be activated: there is only the plumbing to take away.",
        ),
        Row(_S.SOLO, _E.GUEST_ENDED, _S.FREEING, END, "There is nothing left to protect."),
        Row(_S.SEEKING, _E.SESSION_OPENED, _S.REPROTECTING, (_A.SEED,), "A backup is willing: copy the guest."),
        Row(
            _S.SEEKING,
            _E.SESSION_LOST,
            _S.SOLO,
            (_A.ABANDON_SESSION, *run_on),
            "Still no backup: it runs on unprotected. Output that could not be opened before is opened now.",
        ),
        Row(_S.SEEKING, _E.STOP_ASKED, _S.FREEING, END, "No copy may be activated."),
        Row(_S.SEEKING, _E.STOP_FORCED, _S.FREEING, END, "No copy may be activated."),
        Row(_S.SEEKING, _E.ANOTHER_OWNS, _S.STANDING_DOWN, STAND_DOWN, lost),
        Row(_S.SEEKING, _E.GUEST_ENDED, _S.FREEING, END, "There is nothing left to protect."),
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
            HOLD,
            "The backup may have committed without our hearing of it.",
        ),
        Row(_S.REPROTECTING, _E.STOP_ASKED, _S.FREEING, END, "No copy was committed; the backup drops its half."),
        Row(_S.REPROTECTING, _E.STOP_FORCED, _S.FREEING, END, "No copy was committed; the backup drops its half."),
        Row(_S.REPROTECTING, _E.ANOTHER_OWNS, _S.STANDING_DOWN, STAND_DOWN, lost),
        Row(_S.REPROTECTING, _E.GUEST_ENDED, _S.FREEING, END, "There is nothing left to protect."),
        Row(_S.SILENT, _E.RETIRE_ASKED, _S.RETIRING, alone, "The backup can't be asked, the witness can."),
        Row(_S.RECONNECTING, _E.RETIRE_ASKED, _S.RETIRING, alone, "The backup can't be asked, the witness can."),
        Row(_S.RETIRING, _E.SOLE_OWNER, _S.FREEING, END, "No copy may be activated any more."),
        Row(_S.RETIRING, _E.WITNESS_SILENT, _S.SILENT, HOLD, "Nobody can say that the copy will not be activated."),
        Row(_S.RETIRING, _E.ANOTHER_OWNS, _S.STANDING_DOWN, STAND_DOWN, lost),
        *(
            Row(state, _E.ANOTHER_OWNS, _S.STANDING_DOWN, STAND_DOWN, lost)
            for state in (
                _S.PROTECTED,
                _S.RECONNECTING,
                _S.RESEEDING,
                _S.CONNECTING,
                _S.SEEDING,
                _S.STOPPING,
                _S.FREEING,
                _S.FAILING,
            )
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
            Row(state, _E.RETIRE_ASKED, _S.FREEING, END, "It asked in silence; by now no copy may be activated.")
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
            STAND_DOWN,
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
        Row(
            _S.STOOD_DOWN,
            _E.GUEST_RUNS,
            _S.STANDING_DOWN,
            (_A.PAUSE_GUEST,),
            "By hand, the whole guest or a member of a group: that changes nothing of who owns it.",
        ),
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
