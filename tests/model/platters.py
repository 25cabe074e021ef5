"""The disks of the guest of `world.py`. Each host has a device for each: where the guest runs it is its disk, with a tap while
it is protected; on the other host it is a copy. What it is at a moment, the services decide.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from remus_agent.adapters.sim.disk import REGION, SECTOR, SimVolume
from remus_agent.adapters.sim.replica import SimStore
from remus_agent.disk_ports import DiskFacts
from remus_agent.errors import DiskError
from tests.model.violated import Violated

if TYPE_CHECKING:
    from tests.model.hosts import Machine

GUEST: Final = "web1"
SIZE: Final = 4 * REGION
"""Bytes of a disk: few regions, for each of them travels, or its digest, whenever a session begins."""


def device(vdev: str) -> SimVolume:
    """A device, as the guest that has it sees it."""
    return SimVolume(DiskFacts(vdev, SIZE, SECTOR))


class Platters:
    """names: of the guest's disks. delay: seconds that an operation on a copy takes."""

    def __init__(self, hosts: Iterable[Machine], names: tuple[str, ...], delay: Callable[[], float]) -> None:
        self.names = names
        for host in hosts:
            host.stores.delay = delay
            host.volumes[GUEST] = [device(vdev) for vdev in names]
            for volume in host.volumes[GUEST]:
                self._is_copy_of(host, volume)

    def put(self, host: Machine, volume: SimVolume) -> None:
        """This one, of the usual size, is the guest's only disk there."""
        host.volumes[GUEST] = [volume]
        self._is_copy_of(host, volume)

    def _is_copy_of(self, host: Machine, volume: SimVolume) -> None:
        """As a copy it is the same device."""
        host.stores.by_disk[GUEST, volume.facts.vdev] = SimStore(volume.content)

    def content(self, host: Machine) -> bytes:
        """All of them there, one after the other."""
        return b"".join(bytes(volume.content) for volume in host.volumes[GUEST])

    def write(self, host: Machine, count: int) -> None:
        """The guest that runs there writes the number that it has reached to each of its disks: where it always stands, and into
        one sector after the other, so that an epoch which is left out shows."""
        mark = count.to_bytes(8, "little")
        for volume in host.volumes[GUEST]:
            store = host.stores.by_disk[GUEST, volume.facts.vdev]
            if store.user is not None:
                raise Violated(f"G6: {volume.facts.vdev} of the guest that runs on {host.name} is open there as a copy")
            with contextlib.suppress(DiskError):  # that is the guest's to bear
                volume.write(0, mark)
                volume.write(count * 3 * SECTOR % SIZE, mark)

    def lose_kernel(self, host: Machine) -> None:
        """The host loses power: of the mapper's devices nothing is left, and of the maps, which are below /run, neither."""
        for volume in host.volumes[GUEST]:
            volume.make_linear()

    def broken_contract(self, host: Machine) -> str | None:
        """What a service has done to a copy that no service may do."""
        return next(iter(host.stores.violations), None)
