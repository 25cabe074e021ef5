"""Faults seeded on purpose, so that a test of a guarantee can be seen to fail. Never set where it matters.

The environment variable REMUS_SEEDED_FAULT names them, separated by commas. This module alone reads it.

    ack-wait-removed         output is released without waiting for the backup's acknowledgement
    hold-ipv4-only           the output buffer holds IPv4 frames and lets every other ethertype pass
    feed-before-commit       the backup applies memory as it comes, without waiting for the commit of its epoch
    restart-opens-output     an agent that starts anew lets output pass until its first checkpoint
    nobody-resumes           the supervisor leaves suspended guests of dead agents as they are
    error-leaves-suspended   an error while a guest is suspended leaves it suspended
    digest-unchecked         the backup does not compare digests
    disk-apply-on-receipt    the backup writes disk data as they come, without waiting for the commit of their epoch
    disk-ack-ignored         output is released without waiting for the acknowledgements of the disks
    devices-uncompared       output is released without a look at the devices that the guest has by now
    cas-without-compare      the record in the witness is changed whatever stands there by now
    solo-without-cas         a primary that has lost its backup opens its output without having become the sole owner
    generation-unchecked-on-release   output is released without looking whether its host still owns the guest, also by a
                             process that was frozen
    switchover-resumes       a primary that has handed its guest over resumes it all the same
    wall-clock               the detector measures silence with a clock that can be set
    fence-not-awaited        a copy is activated without waiting for the fencing that is required
    destroy-at-once          a host that learns that another one owns its guest destroys it, without waiting until it runs there
    runs-unnoted             a backup makes a guest run without having noted that it does
    older-copy-kept          a backup keeps an older copy that may be activated when a newer session has committed
    session-unasked          an agent that has just started takes sessions in without having read the record
    loss-unnoticed           a record that the witness has lost is taken for one that there never was
    word-never-old           a word that a host may run a guest is acted on however late, also by a host that was frozen
    override-unrecorded      what an operator's word has activated is not written into the record in the witness
    members-apart            the barrier of a consistency group is taken while only one of its members is down, and nobody waits
    pause-at:<phase>         the primary's agent stops itself (SIGSTOP), once, when an epoch is in that phase, so
                             that a test can kill it exactly there; the phases are those of `Phase`;
                             `pause-at:<phase>:<n>` does so when it gets there for the n-th time
"""

from __future__ import annotations

import functools
import logging
import os
import re
import signal
from collections import Counter
from enum import Enum, StrEnum
from typing import Final

from remus_agent.errors import ConfigError

VARIABLE: Final = "REMUS_SEEDED_FAULT"
_log = logging.getLogger(__name__)


class FaultName(Enum):
    """The faults that exist."""

    ACK_WAIT_REMOVED = "ack-wait-removed"
    HOLD_IPV4_ONLY = "hold-ipv4-only"
    FEED_BEFORE_COMMIT = "feed-before-commit"
    RESTART_OPENS_OUTPUT = "restart-opens-output"
    NOBODY_RESUMES = "nobody-resumes"
    ERROR_LEAVES_SUSPENDED = "error-leaves-suspended"
    DIGEST_UNCHECKED = "digest-unchecked"
    DISK_APPLY_ON_RECEIPT = "disk-apply-on-receipt"
    DISK_ACK_IGNORED = "disk-ack-ignored"
    DEVICES_UNCOMPARED = "devices-uncompared"
    CAS_WITHOUT_COMPARE = "cas-without-compare"
    SOLO_WITHOUT_CAS = "solo-without-cas"
    GENERATION_UNCHECKED = "generation-unchecked-on-release"
    WALL_CLOCK = "wall-clock"
    SWITCHOVER_RESUMES = "switchover-resumes"
    FENCE_NOT_AWAITED = "fence-not-awaited"
    DESTROY_AT_ONCE = "destroy-at-once"
    RUNS_UNNOTED = "runs-unnoted"
    OLDER_COPY_KEPT = "older-copy-kept"
    SESSION_UNASKED = "session-unasked"
    LOSS_UNNOTICED = "loss-unnoticed"
    WORD_NEVER_OLD = "word-never-old"
    OVERRIDE_UNRECORDED = "override-unrecorded"
    MEMBERS_APART = "members-apart"


class Phase(StrEnum):
    """Where in an epoch the primary's agent is.

    suspended: the guest is down, nothing is copied. copied: the guest is still down, everything is copied.
    sending: some of the epoch is on the wire. acked: nothing is released yet.
    """

    BEFORE_SUSPEND = "before-suspend"
    SUSPENDED = "suspended"
    COPIED = "copied"
    RESUMED = "resumed"
    SENDING = "sending"
    AWAITING_ACK = "awaiting-ack"
    ACKED = "acked"


_PAUSE: Final = re.compile(r"pause-at:(?P<phase>[a-z-]+)(:(?P<times>[1-9][0-9]{0,5}))?")
_passed: Counter[Phase] = Counter()


def _wanted() -> frozenset[str]:
    """What the variable names. Raises ConfigError for a name that does not exist."""
    return _named(os.environ.get(VARIABLE, ""))


@functools.lru_cache(maxsize=8)
def _named(words: str) -> frozenset[str]:
    """The faults of a list with commas. Kept, because the epoch loop asks at every step."""
    wanted = frozenset(word.strip() for word in words.split(",")) - {""}
    unknown = {word for word in wanted - {fault.value for fault in FaultName} if _pause(word) is None}
    if unknown:
        known = [*(fault.value for fault in FaultName), *(f"pause-at:{phase}[:n]" for phase in Phase)]
        raise ConfigError(
            f"{VARIABLE} names an unknown fault: {', '.join(sorted(unknown))}",
            hint=f"unset it, or use one of {', '.join(known)}",
        )
    return wanted


def _pause(word: str) -> tuple[Phase, int] | None:
    """The phase that a word asks to pause at, and the how-manieth time."""
    found = _PAUSE.fullmatch(word)
    if found is None or found["phase"] not in set(Phase):
        return None
    return Phase(found["phase"]), int(found["times"] or 1)


def pause_at(phase: str) -> None:
    """Stop this process here if that is asked for: all its threads stand still until SIGCONT or SIGKILL.

    phase: one of `Phase`. Only once in the life of a process; free when nothing is asked for.
    """
    if VARIABLE not in os.environ:
        return
    here = Phase(phase)
    _passed[here] += 1
    if (here, _passed[here]) in map(_pause, _wanted()):
        _log.warning("SEEDED FAULT ACTIVE: pause-at:%s, time %d. This process stops now.", here, _passed[here])
        os.kill(os.getpid(), signal.SIGSTOP)


def active(name: FaultName) -> bool:
    """Whether a fault is asked for; warns loudly each time. Raises ConfigError for an unknown name."""
    if name.value not in _wanted():
        return False
    _log.warning("SEEDED FAULT ACTIVE: %s. A guarantee is broken on purpose; unset %s.", name.value, VARIABLE)
    return True


def check() -> None:
    """Raise ConfigError now if the variable names a fault that does not exist, and say loudly which ones are set."""
    for name in sorted(_wanted()):
        _log.warning("SEEDED FAULT SET: %s. Guarantees are broken on purpose.", name)
