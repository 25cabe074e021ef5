"""Every kind of event that the agent notes: whether somebody has to do something about it, and where the runbook says what.

A kind is in exactly one of the two tables; a test compares them with the code that notes events, and with the headings of
`docs/runbook.md`. States of a guest are kinds too, so these tables also explain a status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

RUNBOOK: Final = "docs/runbook.md"


@dataclass(frozen=True, slots=True)
class Problem:
    """means: one sentence for people. section: the heading of the runbook that says what to do, as an anchor."""

    means: str
    section: str

    @property
    def runbook(self) -> str:
        """Where to read on."""
        return f"{RUNBOOK}#{self.section}"


PROBLEMS: Final[Mapping[str, Problem]] = MappingProxyType(
    {
        "silent": Problem("the backup acknowledges nothing, so the guest's output is held", "a-guest-is-silent"),
        "solo": Problem("the guest runs on without a backup", "a-guest-is-solo"),
        "failed": Problem("it could not be protected, and runs as before", "protect-is-refused"),
        "orphaned": Problem("the primary is not heard, and its copy here waits", "a-host-has-died"),
        "copy-hangs": Problem("what its primary has sent is taken in no more", "a-backup-hangs"),
        "stale": Problem("the guest ran on without this copy, which is old by now", "failover-is-refused"),
        "not-taken-over": Problem("this host asked to take it over and did not", "failover-is-refused"),
        "record-lost": Problem("the witness knows nothing any more of who owns the guest", "a-record-is-lost"),
        "override": Problem("an operator ran a copy that clients may know more than", "failover-is-refused"),
        "standing-down": Problem("another host owns the guest, so it is paused here", "a-guest-is-stood-down"),
        "stood-down": Problem("another host owns the guest, and it is paused here", "a-guest-is-stood-down"),
        "starting": Problem(
            "it was built to run here, and waits paused until it is known that it may", "a-guest-is-starting"
        ),
        "start-unfinished": Problem("it was built to run here and was not started", "a-guest-is-starting"),
        "in-doubt": Problem(
            "it was handed over, and nobody says whether it runs over there", "a-switchover-is-in-doubt"
        ),
        "fencing-failed": Problem("the host that ran the guest could not be switched off", "fencing-failed"),
        "watchdog-failed": Problem("the watchdog does not look after this host", "a-host-was-reset-by-its-watchdog"),
        "local-disk-failed": Problem("the primary's own device behind a disk has failed", "local-disk-failed"),
        "not-resumed": Problem("the guest is down here and could not be resumed", "a-guest-does-not-do-as-it-is-told"),
        "handed-over-guest-stands": Problem(
            "it was moved away and could not be destroyed here", "a-guest-does-not-do-as-it-is-told"
        ),
        "stale-guest-not-paused": Problem(
            "another host owns it, and it could not be paused here", "a-guest-does-not-do-as-it-is-told"
        ),
        "stale-guest-stands": Problem(
            "another host runs it, and it could not be destroyed here", "a-guest-does-not-do-as-it-is-told"
        ),
        "output-not-freed": Problem("protection ends, and output is still held", "protection-does-not-end"),
        "disks-not-freed": Problem("protection ends, and a disk is still tapped", "protection-does-not-end"),
        "paused": Problem("its protection is suspended for a time: it has no copy", "a-protection-is-paused"),
        "pause-overdue": Problem("its pause is over, and it could not be protected again", "a-protection-is-paused"),
        "guest-gone": Problem("the guest does not run here any more, though it should", "a-guest-is-gone"),
        "record-damaged": Problem("what was noted of a protection cannot be read", "a-protection-was-not-resumed"),
        "peer-unknown": Problem("its backup is not configured any more", "a-protection-was-not-resumed"),
        "group-changed": Problem(
            "its group is another one, or none, in the configuration", "a-protection-was-not-resumed"
        ),
        "resume-put-off": Problem(
            "what has to be asked about the guest fails, and its output stays held", "a-protection-was-not-resumed"
        ),
        "sweep-failed": Problem(
            "what an earlier agent left could not be cleared up", "after-a-crash-of-the-backups-agent"
        ),
        "older-copy-stays": Problem(
            "a copy that a newer one has replaced could not be cleared up", "after-a-crash-of-the-backups-agent"
        ),
        "defect": Problem(
            "the agent's code failed in a way that nobody has foreseen", "a-protection-ended-by-a-defect"
        ),
    }
)

HARMLESS: Final[frozenset[str]] = frozenset(
    {
        # The life of a protection on its primary
        *(
            "connecting",
            "seeding",
            "protected",
            "reconnecting",
            "reseeding",
            "stopping",
            "freeing",
            "failing",
            "stopped",
        ),
        *("going-solo", "seeking", "reprotecting", "retiring", "resumed", "announced"),
        "pause-over",
        # A switchover, and a guest that another host owns
        *("switching", "handed-over", "departing", "departed", "returning", "giving-up", "given-up", "given-back"),
        # A copy on its backup
        *("receiving", "ready", "taking", "activating", "active", "discarded", "older-copy-given-up", "failover-asked"),
        # Roles: what came of it has a kind of its own
        *("suspect", "ownership", "override-recorded", "forgotten", "fenced", "started", "start-undone"),
        *("watchdog-armed", "watchdog-disarmed"),
        # What an earlier agent left was cleared up
        *("output-of-gone-guest-dropped", "left-copy-destroyed", "tap-of-unprotected-guest-removed"),
    }
)
"""Kinds that tell what happened and ask for nothing."""


def explained(event: dict[str, Any]) -> dict[str, Any]:
    """The event, and where somebody has to do something about it what it means and where to read on."""
    problem = PROBLEMS.get(event["event"])
    return event if problem is None else {**event, "means": problem.means, "runbook": problem.runbook}
