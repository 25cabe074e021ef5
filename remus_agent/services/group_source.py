"""Takes the checkpoints of a consistency group: `source_ports.Source` over the sources of its members."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields, replace

from remus_agent.ports import Domain
from remus_agent.protocol.stream.constants import PAGE_SIZE
from remus_agent.services.meeting import BrokenOffError, EpochMeeting
from remus_agent.services.together import all_done
from remus_agent.source_ports import AtBarrier, Checkpoint, SeedRound, Source, Timing


class GroupSource:
    """`source_ports.Source`. members: in the order in which frames count them, with the source of each."""

    def __init__(self, members: Sequence[tuple[Domain, Source]]) -> None:
        self._names = [domain.name for domain, _ in members]
        self._sources = [source for _, source in members]
        self._pages = [domain.memory_kib * 1024 // PAGE_SIZE for domain, _ in members]

    @property
    def preambles(self) -> Sequence[bytes]:
        return [preamble for source in self._sources for preamble in source.preambles]

    async def begin(self) -> None:
        try:
            for source in self._sources:
                await source.begin()
        except BaseException:
            await self.close()
            raise

    async def seed(self) -> AsyncIterator[SeedRound]:
        """A piece of the member that is least far, and so on, so that all end at about the same time: what one changes while
        another is still copied is in the first checkpoint, for which all of them are down."""
        done, totals = [0] * len(self._sources), list(self._pages)
        left = {number: source.seed() for number, source in enumerate(self._sources)}
        while left:
            number = min(left, key=lambda each: done[each] / max(totals[each], 1))
            piece = await anext(left[number], None)
            if piece is None:
                del left[number]
                continue
            done[number], totals[number] = piece.done, piece.total
            yield replace(piece, done=sum(done), total=sum(totals), member=number)

    async def checkpoint(
        self, epoch: int, at_barrier: AtBarrier, timeout: float, *, stay_down: bool = False
    ) -> Checkpoint:
        """As the port says: of all members, or of none. Each is resumed as soon as it is copied."""
        meeting = EpochMeeting(self._names, at_barrier, timeout)

        async def one(name: str, source: Source) -> Checkpoint:
            try:
                return await source.checkpoint(epoch, meeting.of(name), timeout, stay_down=stay_down)
            except BaseException:
                meeting.leave(name)
                raise

        works = [one(name, source) for name, source in zip(self._names, self._sources, strict=True)]
        ends = await asyncio.gather(*works, return_exceptions=True)
        taken = [end for end in ends if isinstance(end, Checkpoint)]
        if len(taken) < len(ends):
            if stay_down:
                await self.close()  # those that are down run again
            raise _cause([end for end in ends if isinstance(end, BaseException)])
        timing = Timing(*(max(getattr(one.timing, each.name) for one in taken) for each in fields(Timing)))
        return Checkpoint(epoch, sum(one.pages for one in taken), (), timing, tuple(taken))

    async def leave_down(self) -> None:
        for source in self._sources:
            await source.leave_down()

    async def close(self) -> None:
        await all_done([source.close() for source in self._sources])


def _cause(errors: Sequence[BaseException]) -> BaseException:
    """What broke the checkpoint off, rather than what followed from it."""
    return next((error for error in errors if not isinstance(error, BrokenOffError)), errors[0])
