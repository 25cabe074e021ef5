"""The part of a primary's table that is a switchover."""

from __future__ import annotations

from remus_agent.machines.primary import END, HOLD, STAND_DOWN, Effect, Event, State
from remus_agent.machines.table import Row

_S, _E, _A = State, Event, Effect


def switchover() -> list[Row[State, Event, Effect]]:
    """A guest that moves to its backup on an operator's word."""
    back = (_A.RESUME_GUEST, *HOLD)
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
            STAND_DOWN,
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
            STAND_DOWN,
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
            (_A.RESUME_GUEST, *END),
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
