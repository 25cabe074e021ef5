"""A hypervisor in memory: domains with a few pages that count upwards while they run."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from remus_agent.errors import DomainNotFound, GuestEnded, HypervisorError
from remus_agent.ports import Domain, GuestType, HostFacts, Vbd, Vif
from remus_agent.protocol.replication.frames import Buffer
from remus_agent.protocol.stream import headers, writer
from remus_agent.protocol.stream.constants import VCPU_BASIC_SIZES, DomainType, LibxcRecordType
from remus_agent.protocol.stream.framing import pack_record
from remus_agent.protocol.stream.preamble import parse_preamble
from remus_agent.protocol.stream.reader import iter_records
from remus_agent.protocol.stream.records import parse_page_data
from remus_agent.source_ports import AtBarrier, Checkpoint, Meeting, SeedRound, Timing

PAGE = 4096
_NO_TIME = Timing(0, 0, 0, 0, 0, 0, 0)


@dataclass
class SimGuest:
    """One domain. memory: pages of 4096 bytes. ended: it has powered off by itself. emulator: what its device model was
    restored from. paused_copy: it was made from a stream, and has never run. built: its toolstack has finished it, so it
    outlives its agent."""

    domain: Domain
    memory: bytearray
    dirty: set[int] = field(default_factory=set)
    running: bool = True
    suspended: bool = False
    paused_copy: bool = False
    built: bool = False
    ended: bool = False
    in_log_dirty: bool = False
    left_down: bool = False
    """Nobody resumes it when its agent dies."""
    emulator: tuple[Buffer, ...] = ()

    def write(self, pfn: int, data: bytes) -> None:
        """The guest writes to a page. Only a guest that runs can."""
        if not self.running or self.suspended:
            raise AssertionError("a guest that does not run has written")
        self.memory[pfn * PAGE : pfn * PAGE + len(data)] = data
        self.dirty.add(pfn)

    def attach(self, device: Vbd | Vif) -> None:
        """`xl block-attach`, `xl network-attach`."""
        if isinstance(device, Vbd):
            self.domain = replace(self.domain, disks=(*self.domain.disks, device))
        else:
            self.domain = replace(self.domain, vifs=(*self.domain.vifs, device))

    def detach(self, device: Vbd | Vif) -> None:
        """`xl block-detach`, `xl network-detach`."""
        disks = tuple(vbd for vbd in self.domain.disks if vbd != device)
        self.domain = replace(self.domain, disks=disks, vifs=tuple(vif for vif in self.domain.vifs if vif != device))

    def read(self, pfn: int, length: int) -> bytes:
        """What stands at the start of a page."""
        return bytes(self.memory[pfn * PAGE : pfn * PAGE + length])


class SimHypervisor:
    """ports.Hypervisor of one host."""

    def __init__(
        self, name: str, *, free_memory_kib: int = 1 << 20, xen: str = "4.20.0", cpu_policy: str = "c0ffee"
    ) -> None:
        self.name = name
        self.guests: dict[str, SimGuest] = {}
        self.host = HostFacts(xen, cpu_policy, free_memory_kib)
        self.toolstack_fails = False
        self.broken: set[str] = set()
        """Names of copies that the toolstack cannot finish."""
        self.stuck: set[str] = set()
        """Names of guests that cannot be unpaused."""
        self.history: list[tuple[str, str]] = []
        """Renames and unpauses, in order, with the name that the guest has then."""
        self.in_window: Callable[[], None] = lambda: None
        self.suspends: Callable[[str], float] = lambda _: 0.0
        """Seconds that a guest of this name takes to go down."""
        self.step: Callable[[], float] = lambda: 0.0
        """Seconds that the toolstack's work takes at the end of a stream, and each step of what follows."""
        self._next_domid = 1

    def create(
        self,
        name: str,
        uuid: str,
        pages: int = 16,
        guest_type: GuestType = GuestType.PVH,
        disks: tuple[str, ...] = (),
    ) -> SimGuest:
        """Start a guest, as `xl create` does."""
        domid = self._next_domid
        self._next_domid += 1
        vif = Vif(0, f"vif{domid}.0", f"00:16:3e:00:00:{domid:02x}", "br0")
        vbds = tuple(Vbd(vdev, f"/dev/mapper/remus-{name}-{vdev}") for vdev in disks)
        domain = Domain(name, domid, uuid, guest_type, pages * 4, (vif,), vbds)
        guest = SimGuest(domain, bytearray(pages * PAGE))
        self.guests[name] = guest
        return guest

    async def facts(self) -> HostFacts:
        return self.host

    async def domain(self, name: str) -> Domain:
        guest = self.guests.get(name)
        if guest is None or guest.ended:
            raise DomainNotFound(f"no such domain; there is {', '.join(self.guests) or 'none'}", domain=name)
        return guest.domain

    async def name_of(self, uuid: str) -> str | None:
        there = (guest.domain for guest in self.guests.values() if not guest.ended)
        return next((domain.name for domain in there if domain.uuid == uuid), None)

    async def devices(self, domain: Domain) -> Domain | None:
        await asyncio.sleep(0)
        guest = self.guests.get(domain.name)
        return guest.domain if guest is not None and guest.running and not guest.ended else None

    async def open_source(self, domain: Domain) -> SimSource:
        return SimSource(self, self.guests[domain.name])

    async def open_target(self, preamble: bytes, working_name: str) -> SimTarget:
        if self.toolstack_fails:
            raise HypervisorError("the toolstack failed", operation="restore", domain=working_name)
        parsed = parse_preamble(preamble)
        info = parsed.config["c_info"]
        pages = parsed.config["b_info"]["pages"]
        guest = self.create(working_name, info["uuid"], pages, GuestType(info["type"]))
        disks = tuple(Vbd(disk["vdev"], disk["pdev_path"]) for disk in parsed.config.get("disks", []))
        guest.domain = replace(guest.domain, disks=disks)
        guest.running = False
        guest.paused_copy = True
        return SimTarget(self, guest)

    async def names(self) -> frozenset[str]:
        return frozenset(self.guests)

    async def rename(self, domain: Domain, name: str) -> Domain:
        guest = self._same(domain)
        if name in self.guests:
            raise HypervisorError(f"another domain is called {name} on this host", operation="rename", domain=name)
        guest.domain = replace(domain, name=name)
        self.guests[name] = self.guests.pop(domain.name)
        self.history.append(("rename", name))
        return guest.domain

    async def destroy(self, name: str) -> bool:
        return self.guests.pop(name, None) is not None

    async def resume(self, domain: Domain) -> bool:
        guest = self._same(domain)
        was, guest.suspended, guest.left_down = guest.suspended, False, False
        return was

    def revive(self) -> None:
        """What the supervisor does when an agent has died."""
        for guest in self.guests.values():
            guest.suspended = guest.suspended and guest.left_down

    def lose_agent(self) -> None:
        """What becomes of an agent's copies when it dies: the toolstack destroys what it has not finished."""
        for name in [name for name, guest in self.guests.items() if guest.paused_copy and not guest.built]:
            del self.guests[name]

    async def is_paused(self, domain: Domain) -> bool:
        return not self._same(domain).running

    async def pause(self, domain: Domain) -> None:
        self._same(domain).running = False

    async def unpause(self, domain: Domain) -> None:
        guest = self._same(domain)
        if domain.name in self.stuck:
            raise HypervisorError("it cannot be unpaused", operation="unpause", domain=domain.name)
        guest.running, guest.paused_copy = True, False
        self.history.append(("unpause", domain.name))

    def _same(self, domain: Domain) -> SimGuest:
        guest = self.guests.get(domain.name)
        if guest is None or guest.ended or guest.domain.uuid != domain.uuid:
            raise DomainNotFound("it is gone, or another one by now", domain=domain.name)
        return guest

    async def domids(self) -> frozenset[int]:
        return frozenset(guest.domain.domid for guest in self.guests.values())


class SimSource:
    """source_ports.Source"""

    def __init__(self, host: SimHypervisor, guest: SimGuest) -> None:
        self._host = host
        self._guest = guest

    @property
    def preambles(self) -> Sequence[bytes]:
        config = {
            "c_info": {
                "type": self._guest.domain.guest_type.value,
                "name": self._guest.domain.name,
                "uuid": self._guest.domain.uuid,
            },
            "b_info": {"pages": len(self._guest.memory) // PAGE},
            "disks": [{"vdev": vbd.vdev, "pdev_path": vbd.path} for vbd in self._guest.domain.disks],
        }
        preamble = writer.preamble(json.dumps(config), (4, 20), b"\0" * 24, b"\0" * 16)
        return (_as_pv(preamble) if self._pv else preamble,)

    @property
    def _pv(self) -> bool:
        return self._guest.domain.guest_type is GuestType.PV

    async def begin(self) -> None:
        self._guest.in_log_dirty = True
        self._guest.dirty = set()

    async def seed(self) -> AsyncIterator[SeedRound]:
        total = len(self._guest.memory) // PAGE
        if self._pv:
            p2m = pack_record(LibxcRecordType.X86_PV_P2M_FRAMES, struct.pack("<IIQ", 0, total - 1, 0))
            yield SeedRound([p2m], 0, 0, total)
        for start in range(0, total, 8):
            count = min(8, total - start)
            await asyncio.sleep(0)
            yield SeedRound(self._pages(range(start, start + count))[0], count, start + count, total)

    async def checkpoint(
        self,
        epoch: int,
        at_barrier: AtBarrier,
        timeout: float,  # noqa: ARG002 - the port's signature
        *,
        stay_down: bool = False,
    ) -> Checkpoint:
        await asyncio.sleep(self._host.suspends(self._guest.domain.name))
        if self._guest.ended:
            raise GuestEnded("the guest has powered off", domain=self._guest.domain.name, epoch=epoch)
        self._guest.suspended = True
        try:
            await _end_epoch(at_barrier)
            self._host.in_window()
            dirty, self._guest.dirty = sorted(self._guest.dirty), set()
            groups = self._pages(dirty)
            self._guest.suspended = stay_down
        except BaseException:
            self._guest.suspended = False
            raise
        tail: list[Buffer] = [
            writer.tsc_info(0, 2_000_000, 1, 0),
            *(_pv_state() if self._pv else _hvm_state(epoch)),
            writer.checkpoint(),
        ]
        if self._guest.domain.guest_type is GuestType.HVM:
            tail.append(writer.emulator_context(b"device model %d" % epoch))
        tail.append(writer.checkpoint_end())
        await asyncio.sleep(0)
        return Checkpoint(epoch, len(dirty), [*groups, tail], _NO_TIME)

    async def leave_down(self) -> None:
        self._guest.left_down = True

    async def close(self) -> None:
        self._guest.in_log_dirty = False
        self._guest.suspended = self._guest.suspended and self._guest.left_down

    def _pages(self, pfns: Sequence[int]) -> list[list[Buffer]]:
        content = b"".join(bytes(self._guest.memory[pfn * PAGE : (pfn + 1) * PAGE]) for pfn in pfns)
        return [list(group) for group in writer.page_data(np.array(pfns, dtype=np.uint64), memoryview(content))]


async def _end_epoch(at_barrier: AtBarrier) -> None:
    """This source has no thread that could wait for others."""
    if isinstance(at_barrier, Meeting):
        await at_barrier.arrive()
    else:
        at_barrier()


def _as_pv(preamble: bytes) -> bytes:
    """The preamble of a PV guest: another type in the domain header, X86_PV_INFO behind it."""
    before, mark, rest = preamble.partition(headers.pack_domain_header((4, 20)))
    if not mark:
        raise AssertionError("the writer's preamble has a domain header")
    info = pack_record(LibxcRecordType.X86_PV_INFO, struct.pack("<BB6x", 8, 4))
    return before + headers.pack_domain_header((4, 20), DomainType.PV) + info + rest


def _hvm_state(epoch: int) -> list[Buffer]:
    return [writer.hvm_context(b"context %d" % epoch), writer.hvm_params([(1, 0xFEFFC)])]


def _pv_state() -> list[Buffer]:
    vcpu = struct.pack("<II", 0, 0) + bytes(VCPU_BASIC_SIZES[8])
    return [
        pack_record(LibxcRecordType.SHARED_INFO, bytes(PAGE)),
        pack_record(LibxcRecordType.X86_PV_VCPU_BASIC, vcpu),
    ]


class SimTarget:
    """ports.Target"""

    def __init__(self, host: SimHypervisor, guest: SimGuest) -> None:
        self._host = host
        self._guest = guest
        self.may_have_run = False
        self.built = False
        self._renamed = False

    async def feed(self, buffers: Sequence[Buffer]) -> None:
        if self._host.toolstack_fails:
            raise HypervisorError("the toolstack process ended", operation="feed", domain=self._guest.domain.name)
        for buffer in buffers:
            for record in iter_records(buffer):
                pv = self._guest.domain.guest_type is GuestType.PV
                if pv and record.type == LibxcRecordType.X86_PV_P2M_FRAMES:
                    continue
                if record.type != LibxcRecordType.PAGE_DATA:
                    raise AssertionError("only PAGE_DATA may be fed")
                page = parse_page_data(record.body, 0, hvm=not pv)
                for index, pfn in enumerate(page.pfns.tolist()):
                    self._guest.memory[pfn * PAGE : (pfn + 1) * PAGE] = page.content[index * PAGE : (index + 1) * PAGE]
        await asyncio.sleep(0)

    async def build(self, tail: Sequence[Buffer], emulator: Sequence[Buffer]) -> None:
        if self.built:
            return
        domain = self._guest.domain
        await asyncio.sleep(self._host.step())
        if self._host.toolstack_fails or domain.name in self._host.broken:
            raise HypervisorError("the toolstack could not finish the domain", operation="build", domain=domain.name)
        if len(tail) != 3:
            raise AssertionError("the tail has three records")
        if len(emulator) != (domain.guest_type is GuestType.HVM):
            raise AssertionError("an HVM guest has one record of its device model, others none")
        self._guest.emulator = tuple(emulator)
        self.built = self._guest.built = True

    async def rename(self, name: str) -> None:
        if not self.built:
            raise AssertionError("only a domain that is built can run")
        await asyncio.sleep(self._host.step())
        await self._host.rename(self._guest.domain, name)
        self._renamed = True

    async def run(self) -> Domain:
        if not self._renamed:
            raise AssertionError("a copy that has not got its name must not run")
        await asyncio.sleep(self._host.step())
        self.may_have_run = True
        await self._host.unpause(self._guest.domain)
        return self._guest.domain

    async def abort(self) -> None:
        if self._guest.paused_copy:
            self._host.guests.pop(self._guest.domain.name, None)
