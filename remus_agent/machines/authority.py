"""Who may run a guest: the record in the witness, and what each role may do on what it reads there, as a table.

A role wants something (`Want`), reads the record, sees it in its own light (`Reading`) and gets a `Verdict`: go ahead, ask for
a change first, or don't. A change is a compare-and-swap on exactly the record that was read, so what was decided on a record
that is not there any more changes nothing. When the answer to a change did not come, the record is read again and decided on
anew, until a change of one's own is confirmed or impossible: a request that is still under way can only be made void by
another change, never by reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal


@dataclass(frozen=True, slots=True)
class Ownership:
    """The record of one guest. owner: host that may run it. generation: rises by one with every change, from 1 on, and never
    falls. state: `solo`: only the owner may run it; `protected`: `backup` may take over. backup: that host, None when solo.
    name: the guest's name; reason: why it was changed last; changed_by: the host that did it; these three are for people."""

    owner: str
    generation: int
    state: Literal["solo", "protected"]
    backup: str | None
    name: str
    reason: str
    changed_by: str


class Want(Enum):
    """What a role is about to do."""

    CLAIM = "begin to protect a guest that runs here with its output open"
    OPEN = "open a session with the backup"
    REGISTER = "let the backup take over from now on: the first epoch of a session is committed"
    RELEASE = "release output although the acknowledged epoch was sent long ago"
    ALONE = "run on without a backup, output open"
    TAKE = "activate a copy"
    OVERRIDE = "have the record say that the guest runs here by an operator's proof of fencing"
    GIVE = "give back a guest that was taken over, has never run here, and whose copy is lost"
    RESUME = "let the guest go on that was paused because another host owned it"


class Reading(Enum):
    """What the record says to who reads it. A copy's or a session's generation is `of it` when the record names it, or would
    name it after the change that is wanted."""

    NONE = "there is no record"
    LOST = "there is no record, although there was one: a backup may hold a committed copy"
    MINE_SOLO = "only this host may run it"
    MINE_SOLO_OF_IT = "only this host may run it, and the session is of the next generation"
    MINE_PROTECTED = "this host may run it, and a backup may take over a copy of another session's generation or host"
    MINE_PROTECTED_OF_IT = "this host may run it, and the backup may take over the copy of this session's generation"
    OFFERED = "another host may run it, and this one may take over the copy that it has"
    NOT_YET = "another host may run it, and has not registered the copy that this one has"
    TAKEN = "this host has taken over the copy that it has"
    THEIRS = "another host may run it, and the copy that this one has is stale"
    HANDED_BACK = "only this host may run it, because the one that owned it meanwhile has never run it"


class Verdict(Enum):
    """What may be done."""

    GO = "do it"
    CREATE = "first ask for the first record: this host, alone"
    BE_ALONE = "first ask to be the sole owner, of the next generation"
    PROTECT = "first ask for the backup to be named"
    BECOME_OWNER = "first ask to be the owner, of the next generation"
    GIVE_BACK = "first ask for the host that the copy came from to be the owner, of the next generation"
    REFUSE = "do not do it now; nothing is wrong"
    WAIT = "do as if the witness were silent, and say it aloud: it has lost what it knew, and an operator has to look"
    AGAIN = "end the session and open one of the right generation"
    STAND_DOWN = "another host owns it: give up the guest or the copy"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table."""

    want: Want
    reading: Reading
    verdict: Verdict
    comment: str


def _rules(want: Want, readings: tuple[Reading, ...], verdict: Verdict, comment: str) -> list[Rule]:
    """What holds for several readings alike."""
    return [Rule(want, reading, verdict, comment) for reading in readings]


_W, _R, _V = Want, Reading, Verdict

RULES: tuple[Rule, ...] = (
    Rule(_W.CLAIM, _R.NONE, _V.CREATE, "Protected for the first time: nobody else knows of it."),
    *_rules(_W.CLAIM, (_R.MINE_SOLO, _R.MINE_SOLO_OF_IT), _V.GO, "It was protected before; no copy may be activated."),
    *_rules(
        _W.CLAIM,
        (_R.MINE_PROTECTED, _R.MINE_PROTECTED_OF_IT),
        _V.BE_ALONE,
        "An earlier protection was not ended in order, and its output is open: whatever copy is left must not be activated.",
    ),
    Rule(_W.CLAIM, _R.THEIRS, _V.REFUSE, "A person has to say which of the two guests is the right one."),
    Rule(_W.OPEN, _R.NONE, _V.CREATE, "It was protected without a witness: nobody has ever asked this one about it."),
    Rule(
        _W.OPEN,
        _R.LOST,
        _V.WAIT,
        "The backup may have taken over before the record was lost. If it lets the session in, it has not.",
    ),
    *_rules(_W.OPEN, (_R.MINE_SOLO, _R.MINE_SOLO_OF_IT), _V.GO, "The session gets the generation after this one."),
    Rule(
        _W.OPEN,
        _R.MINE_PROTECTED,
        _V.BE_ALONE,
        "The copy that is named there is on another host or of another time: it must not be activated any more.",
    ),
    Rule(
        _W.OPEN,
        _R.MINE_PROTECTED_OF_IT,
        _V.GO,
        "Output was held ever since, so any copy of this generation may be activated: the session keeps it.",
    ),
    Rule(_W.OPEN, _R.THEIRS, _V.STAND_DOWN, "The backup has taken over."),
    Rule(_W.REGISTER, _R.NONE, _V.AGAIN, "Somebody has forgotten the record meanwhile: begin with a new one."),
    Rule(
        _W.REGISTER,
        _R.LOST,
        _V.PROTECT,
        "The backup has let the session in, which it does only while it knows that it does not run the guest.",
    ),
    Rule(
        _W.REGISTER,
        _R.MINE_SOLO,
        _V.AGAIN,
        "An older change of ours came late; the copy's generation is not the next one.",
    ),
    Rule(_W.REGISTER, _R.MINE_SOLO_OF_IT, _V.PROTECT, "The backup holds a whole copy, and output is held since then."),
    Rule(_W.REGISTER, _R.MINE_PROTECTED, _V.AGAIN, "Another copy is named there."),
    Rule(_W.REGISTER, _R.MINE_PROTECTED_OF_IT, _V.GO, "It stands there already: a session under the same record."),
    Rule(_W.REGISTER, _R.THEIRS, _V.STAND_DOWN, "The backup has taken over."),
    Rule(_W.RELEASE, _R.NONE, _V.GO, "There never was one, and nobody can take over without one."),
    Rule(_W.RELEASE, _R.LOST, _V.WAIT, "The backup may have taken over before the record was lost."),
    *_rules(_W.RELEASE, (_R.MINE_SOLO, _R.MINE_SOLO_OF_IT), _V.GO, "Nobody can have taken over."),
    *_rules(_W.RELEASE, (_R.MINE_PROTECTED, _R.MINE_PROTECTED_OF_IT), _V.GO, "Nobody has taken over."),
    Rule(_W.RELEASE, _R.THEIRS, _V.STAND_DOWN, "The backup has taken over while this host was away."),
    Rule(
        _W.ALONE,
        _R.NONE,
        _V.CREATE,
        "No copy was ever committed under a record, so nobody has taken over, and without one nobody can.",
    ),
    Rule(_W.ALONE, _R.LOST, _V.WAIT, "The backup may have taken over before the record was lost: output stays held."),
    *_rules(
        _W.ALONE,
        (_R.MINE_SOLO, _R.MINE_SOLO_OF_IT),
        _V.BE_ALONE,
        "It says so already, but a request to name the backup may still be under way: a change makes that void.",
    ),
    *_rules(
        _W.ALONE, (_R.MINE_PROTECTED, _R.MINE_PROTECTED_OF_IT), _V.BE_ALONE, "From then on no copy may be activated."
    ),
    Rule(_W.ALONE, _R.THEIRS, _V.STAND_DOWN, "The backup was first."),
    Rule(_W.TAKE, _R.NONE, _V.REFUSE, "Without a record nobody knows whether the copy is the newest."),
    Rule(_W.TAKE, _R.OFFERED, _V.BECOME_OWNER, "The copy is the one that may be activated."),
    Rule(_W.TAKE, _R.NOT_YET, _V.REFUSE, "Until the primary has named it, its output may be open."),
    Rule(_W.TAKE, _R.TAKEN, _V.GO, "A change of ours whose answer was lost, or an activation that did not end well."),
    Rule(_W.TAKE, _R.THEIRS, _V.STAND_DOWN, "The primary has run on without it: the copy is of another past."),
    Rule(
        _W.GIVE, _R.TAKEN, _V.GIVE_BACK, "It ran nowhere since: the guest that is paused there is the newest there is."
    ),
    *_rules(
        _W.GIVE,
        (_R.OFFERED, _R.NOT_YET),
        _V.REFUSE,
        "This host has asked for it, and that request may still be under way: look again.",
    ),
    Rule(_W.GIVE, _R.THEIRS, _V.STAND_DOWN, "The record has moved on: there is nothing to give back."),
    Rule(
        _W.GIVE,
        _R.NONE,
        _V.GIVE_BACK,
        "The record is lost: whatever it said, this host never ran the guest, so it is the other one's.",
    ),
    Rule(_W.OVERRIDE, _R.NONE, _V.CREATE, "Somebody has forgotten the record."),
    *_rules(_W.OVERRIDE, (_R.MINE_SOLO, _R.MINE_SOLO_OF_IT), _V.GO, "It says so: a change of ours was made after all."),
    *_rules(
        _W.OVERRIDE,
        (_R.MINE_PROTECTED, _R.MINE_PROTECTED_OF_IT),
        _V.BE_ALONE,
        "It is of an earlier time when this host was the primary: that copy must not be activated.",
    ),
    Rule(
        _W.OVERRIDE,
        _R.THEIRS,
        _V.BECOME_OWNER,
        "Whoever it is: an operator has proof that the other host is off, and this is the only guest that runs.",
    ),
    Rule(_W.RESUME, _R.HANDED_BACK, _V.GO, "Nobody has run it since it was paused: it is the newest there is."),
    Rule(_W.RESUME, _R.THEIRS, _V.REFUSE, "The owner may run it at any moment."),
    Rule(_W.RESUME, _R.NONE, _V.REFUSE, "Without a record nobody knows whether another host has run it."),
    Rule(
        _W.RESUME,
        _R.LOST,
        _V.WAIT,
        "The same; it may have been given back, and stays paused until somebody has looked.",
    ),
    *_rules(
        _W.RESUME,
        (_R.MINE_SOLO, _R.MINE_PROTECTED),
        _V.REFUSE,
        "It says what it said before another host took the guest by an operator's word: that one will write itself in.",
    ),
)
"""Readings that cannot be met by a role that wants something are not in it: `decide` takes them for defects."""

_BY_KEY: Mapping[tuple[Want, Reading], Rule] = {(rule.want, rule.reading): rule for rule in RULES}
if len(_BY_KEY) != len(RULES):
    raise ValueError("two rules for one want and reading")


@dataclass(frozen=True, slots=True)
class Stake:
    """What a role wants and on what. host: this one. guest: its name. generation: of the session or the copy, 0 where there is
    none yet. peer: the other host of the session or the copy. reason: for people. copied: its backup may hold a copy that was
    committed under a record; so where there is none, the witness has lost it, and with it perhaps that the backup took over."""

    want: Want
    host: str
    guest: str
    generation: int
    peer: str
    reason: str
    copied: bool = False

    def decide(self, record: Ownership | None) -> Rule:
        """The rule for this record. Raises KeyError for what a role cannot meet: a defect."""
        return _BY_KEY[self.want, self._reading(record)]

    def change(self, verdict: Verdict, record: Ownership | None) -> Ownership | None:
        """The record to ask for; None where the verdict asks for none."""
        # Where a record was lost, no older copy shall be of its successor's generation, for all that is known here.
        generation = max(1, self.generation) if record is None else record.generation + 1
        match verdict:
            case Verdict.CREATE | Verdict.BE_ALONE | Verdict.BECOME_OWNER:
                return self._record(generation, "solo", None)
            case Verdict.GIVE_BACK:
                later = max(generation, self.generation + 1)  # than all that the other one knew when it stood down
                return Ownership(self.peer, later, "solo", None, self.guest, self.reason, self.host)
            case Verdict.PROTECT:
                return self._record(generation, "protected", self.peer)
        return None

    def _record(self, generation: int, state: Literal["solo", "protected"], backup: str | None) -> Ownership:
        return Ownership(self.host, generation, state, backup, self.guest, self.reason, self.host)

    def _reading(self, record: Ownership | None) -> Reading:
        if record is None:
            return Reading.LOST if self.copied else Reading.NONE
        if self.want in (Want.TAKE, Want.GIVE):
            return self._of_copy(record)
        if record.owner != self.host:
            return Reading.THEIRS
        if self.want is Want.RESUME:
            return self._of_paused(record)
        if record.state == "solo":
            return Reading.MINE_SOLO_OF_IT if record.generation + 1 == self.generation else Reading.MINE_SOLO
        same = (record.generation, record.backup) == (self.generation, self.peer)
        return Reading.MINE_PROTECTED_OF_IT if same else Reading.MINE_PROTECTED

    def _of_paused(self, record: Ownership) -> Reading:
        if record.state == "protected":
            return Reading.MINE_PROTECTED
        # The host that gives a guest back writes that; and later than anything that this one knew when it stood down.
        back = record.changed_by != self.host and record.generation > self.generation
        return Reading.HANDED_BACK if back else Reading.MINE_SOLO

    def _of_copy(self, record: Ownership) -> Reading:
        if record.owner == self.host:
            taken = record.state == "solo" and record.generation == self.generation + 1
            return Reading.TAKEN if taken else Reading.THEIRS
        if record.generation < self.generation:
            return Reading.NOT_YET
        offered = record.generation == self.generation and record.state == "protected" and record.backup == self.host
        return Reading.OFFERED if offered else Reading.THEIRS


def session_generation(record: Ownership) -> int:
    """Of the sessions that the record's owner may open now: a copy that is named keeps its generation, because output was
    held ever since it was; otherwise the next one, which no older copy has."""
    return record.generation if record.state == "protected" else record.generation + 1
