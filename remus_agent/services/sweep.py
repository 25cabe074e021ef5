"""At an agent's start: what an earlier agent held for guests that this one has nothing to do with is nobody's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from remus_agent.disk_ports import Taps
from remus_agent.errors import RemusError
from remus_agent.ports import Clock, EventSink, Hypervisor, OutputBuffers
from remus_agent.services.working_names import guest_of

log = logging.getLogger(__name__)

TOOLSTACK_SECONDS: Final = 10.0
"""For the toolstack to destroy by itself what it was building when its stream broke off."""


async def sweep_outputs(outputs: OutputBuffers, hypervisor: Hypervisor, events: EventSink) -> None:
    """Drop the held output of guests that do not exist any more. A failure is noted; what is left stays."""
    try:
        # The hypervisor says what exists; only this agent makes plugs, and it makes none yet, so no new domain is hit.
        removed = await outputs.sweep(await hypervisor.domids())
    except RemusError as error:
        log.error("what is left of guests that are gone stays: %s", error)
        events.note("?", "sweep-failed", reason=str(error))
        return
    for name in removed:
        log.info("removed %s and what it held: its domain is gone", name)
        events.note("?", "output-of-gone-guest-dropped", interface=name)


async def sweep_copies(
    hypervisor: Hypervisor,
    clock: Clock,
    events: EventSink,
    unread: frozenset[str],
    spared: Callable[[], frozenset[str]],
) -> None:
    """Destroy the copies that an earlier agent has left behind: a domain that the toolstack has finished outlives its stream. It
    is paused and has never run. unread: guests whose record is damaged, or of another release: it may say that one is about to
    run. spared: names of copies that this agent has, or that are about to run; asked right before one is destroyed. A failure is
    noted; such a domain stays paused."""
    try:
        copies = ((name, guest_of(name)) for name in await hypervisor.names())
        left = {name for name, guest in copies if guest is not None and guest not in unread}
        if not left:
            return
        await clock.sleep(TOOLSTACK_SECONDS)
        left &= await hypervisor.names()
    except RemusError as error:
        log.error("whether an earlier agent has left copies behind is not known: %s", error)
        events.note("?", "sweep-failed", reason=str(error))
        return
    for name in sorted(left):
        if name in spared():
            continue
        try:
            if not await hypervisor.destroy(name):
                continue  # its own toolstack was first
        except RemusError as error:
            log.error("%s: a copy that an earlier agent has left stays: %s", name, error)
            events.note("?", "sweep-failed", reason=str(error), copy=name)
        else:
            log.info("%s: destroyed; an earlier agent has left it, and it never ran", name)
            events.note("?", "left-copy-destroyed", copy=name)


async def sweep_taps(taps: Taps, keep: frozenset[str], events: EventSink) -> None:
    """Take away the taps of all domains but these: nobody serves them any more. A failure is noted; such a disk stays a
    mirror of which one half has failed, and its guest runs on."""
    try:
        made_linear = await taps.sweep(keep)
    except RemusError as error:
        log.error("taps that nobody serves stay: %s", error)
        events.note("?", "sweep-failed", reason=str(error))
        return
    for name in made_linear:
        log.info("%s leads to the local device only: nobody protects its domain any more", name)
        events.note("?", "tap-of-unprotected-guest-removed", disk=name)
