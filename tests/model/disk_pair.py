"""A pair whose guest has two disks."""

from __future__ import annotations

from typing import Unpack

from remus_agent.protocol.replication.frames import Frame, FrameType
from remus_agent.services.copy import Copy
from tests.model.pair import Pair, on, until
from tests.model.timeouts import Timeouts

DISKS = ("xvda", "xvdb")


async def protected(**timeouts: Unpack[Timeouts]) -> Pair:
    """web1 with two disks that have content, protected."""
    pair = Pair(DISKS, **timeouts)
    for vdev in DISKS:
        pair.volume(vdev).write(8192, f"before {vdev}".encode())
    await pair.protect()
    return pair


def copy_of(pair: Pair) -> Copy:
    copy = on(pair.beta).backup.copy_of("web1")
    assert copy is not None
    return copy


async def later(pair: Pair, epochs: int = 2) -> None:
    """So many epochs are committed from now on."""
    reached = copy_of(pair).committed_epoch + epochs
    await until(lambda: copy_of(pair).committed_epoch >= reached, "committed")


async def protected_again(pair: Pair) -> None:
    await until(lambda: on(pair.alpha)._primaries["web1"].state.value == "protected", "protected again")


def same(pair: Pair) -> bool:
    return all(pair.copied(vdev) == bytes(pair.volume(vdev).content) for vdev in DISKS)


def dropping(kind: FrameType, vdev: str, pair: Pair) -> None:
    """Lose frames of this type on the connection of one disk."""
    connections = [
        connection
        for connection in pair.network.connections
        if any(frame.type is FrameType.DISK_HELLO for frame in connection.sent)
    ]
    channel = connections[-len(DISKS) :][DISKS.index(vdev)]
    assert channel.other is not None
    other = channel.other
    send = other.send

    async def lossy(frame: Frame) -> None:
        if frame.type is not kind:
            await send(frame)

    other.send = lossy  # type: ignore[method-assign]
