"""Life of one protected domain on its primary: its states, what happens to it, what is done. `primary_table` is the table.

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
from typing import Final


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
    WITNESS_SILENT = "the witness could not be asked, or its answer is not known, or a disk is good on the backup only"
    ANOTHER_OWNS = "another host owns the guest"
    GUEST_PAUSED = "the guest is paused here, and what it had sent was dropped"
    GUEST_NOT_PAUSED = "the guest could not be paused here, or what it had sent not be dropped"
    GUEST_RUNS = "the guest runs here although another host owns it: somebody has let it go on, or started it anew"
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


END: Final = (Effect.ABANDON_SESSION, Effect.FREE_OUTPUT)
"""No copy may be activated: nothing is held any more."""

HOLD: Final = (Effect.ABANDON_SESSION, Effect.WAIT_FOR_RETRY)
"""A copy may be activated: output stays held, and the backup is looked for."""

STAND_DOWN: Final = (Effect.ABANDON_SESSION, Effect.PAUSE_GUEST)
"""Another host owns the guest."""

HELD = frozenset({State.SILENT, State.RECONNECTING, State.GOING_SOLO, State.RETIRING, State.RETURNING, State.IN_DOUBT})
"""Output is held, and no session runs."""

NOT_OURS = frozenset({State.STANDING_DOWN, State.STOOD_DOWN, State.GIVING_UP})
"""Another host owns the guest, and may open a session."""

ALONE = frozenset({State.SOLO, State.SEEKING, State.REPROTECTING})
"""The guest runs without a backup, its output open."""

TERMINAL = frozenset({State.STOPPED, State.FAILED, State.GIVEN_UP, State.DEPARTED})
