"""What it means, in each state, that an operator ends a protection."""

from __future__ import annotations

from remus_agent.errors import RefusedError
from remus_agent.machines.primary import NOT_OURS, Event, State


def stop_event(name: str, state: State, peer: str, *, witnessed: bool, force: bool) -> Event:
    """The machine's event. witnessed: a witness can say that no copy may be activated. Raises RefusedError when the copy's end
    can't be confirmed and `force` doesn't vouch for it."""
    if force:
        return Event.STOP_FORCED
    if state in (State.HANDED, State.IN_DOUBT):
        raise RefusedError(
            f"it was handed over to {peer}, which has not said whether it runs it",
            operation="unprotect",
            domain=name,
            left="the guest is down here, its output is held",
            hint=f"make sure that {peer} does not run it, and repeat with --force: then it goes on here",
        )
    if state is State.STARTING:
        raise RefusedError(
            "it was taken over and has not run here yet: the witness has to say again that this host may run it",
            operation="unprotect",
            domain=name,
            left="the guest is paused here",
            hint="it runs as soon as the witness can be asked; where it is not wanted any more, --force destroys it here",
        )
    if state in NOT_OURS:
        raise RefusedError(
            "another host owns it, and has not shown that it runs it: the guest that is paused here may be the only one",
            operation="unprotect",
            domain=name,
            left="the guest is paused here",
            hint="see `remusctl status` on the other host; where it runs there, or is not wanted any more, --force destroys"
            " the paused guest here",
        )
    if state not in (State.SILENT, State.RECONNECTING):
        return Event.STOP_ASKED
    if witnessed:
        return Event.RETIRE_ASKED
    raise RefusedError(
        "the backup can't be asked to discard its copy, so nobody knows whether it will be activated",
        operation="unprotect",
        domain=name,
        left="the guest runs, its output is held",
        hint="repair the backup or the link; or destroy the copy there and repeat with --force",
    )
