"""What a record needs from the records before it, for HVM (and PVH) and for PV guests.

HVM: one HVM_CONTEXT, at most one X86_TSC_INFO and HVM_PARAMS an epoch. PV: X86_PV_INFO, X86_PV_P2M_FRAMES,
PAGE_DATA, states of vcpus, in this order, because each is understood by the ones before it; one SHARED_INFO and at least
one X86_PV_VCPU_BASIC an epoch. Sources in Xen: docs/specs/libxc-migration-stream.pandoc (Layout),
tools/libs/guest/xg_sr_restore_x86_pv.c and xg_sr_restore_x86_hvm.c, xg_sr_save_x86_pv.c (what is written per vcpu).
"""

from __future__ import annotations

from typing import Final

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream.bodies import Body, EmulatorContext, EmulatorXenstoreData, P2mFrames, PvInfo, VcpuState
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.framing import Record, record_name, refused

_ONCE_AN_EPOCH: Final = frozenset({Xc.X86_TSC_INFO, Xc.HVM_CONTEXT, Xc.HVM_PARAMS, Xc.SHARED_INFO})
_ONCE: Final = frozenset({Xc.X86_PV_INFO, Xc.X86_CPUID_POLICY, Xc.X86_MSR_POLICY, Xc.VERIFY})
_ENDS: Final = frozenset({Xc.CHECKPOINT, Xc.END})


class Dependencies:
    """What has been seen of one guest's records. hvm: an HVM or PVH guest. Holds a bounded number of small facts."""

    def __init__(self, *, hvm: bool = True) -> None:
        self._hvm = hvm
        self._seen: set[int] = set()
        self._state: set[int] = set()
        self._vcpus: set[tuple[int, int]] = set()
        self._emulators: set[tuple[int, int, int]] = set()
        self._static = True
        self._width = 0
        self._max_pfn = -1

    @property
    def max_pfn(self) -> int:
        """Largest pfn that PAGE_DATA may name now, inclusive: a PV guest's p2m table ends somewhere."""
        return c.PFN_MASK if self._hvm else max(self._max_pfn, 0)

    def leave_static_data(self, offset: int) -> None:
        """STATIC_DATA_END, read or inferred, stands at `offset`. Raises StreamError."""
        self._static = False
        if not self._hvm and Xc.X86_PV_INFO not in self._seen:
            raise refused(
                "the static data of a PV guest ends without its X86_PV_INFO",
                offset,
                expected="X86_PV_INFO",
                found="the end of the static data",
            )

    def need(self, kind: int, offset: int) -> None:
        """Check a libxc record by its type alone, before its body is there. Raises StreamError."""
        if kind in _ONCE and kind in self._seen:
            raise _twice(kind, offset, "a stream")
        if kind in _ONCE_AN_EPOCH and kind in self._state:
            raise _twice(kind, offset, "an epoch")
        if kind in _ENDS and not self._static:
            self._need_whole_epoch(kind, offset)
        if self._hvm:
            return
        if kind == Xc.PAGE_DATA and Xc.X86_PV_P2M_FRAMES not in self._seen:
            raise _missing(kind, offset, "X86_PV_P2M_FRAMES")
        if _is_vcpu(kind) and Xc.PAGE_DATA not in self._seen:
            raise _missing(kind, offset, "PAGE_DATA")

    def take(self, record: Record, body: Body) -> None:
        """Take a whole libxc record. Raises StreamError."""
        kind = record.type
        self._seen.add(kind)
        match body:
            case PvInfo():
                self._width = body.width
            case P2mFrames():
                self._take_p2m(record, body)
            case VcpuState():
                self._take_vcpu(record, body)
        if kind in _ENDS:
            self._state.clear()
            self._vcpus.clear()
            self._emulators.clear()
        elif kind in _ONCE_AN_EPOCH:
            self._state.add(kind)

    def take_emulator(self, record: Record, body: EmulatorXenstoreData | EmulatorContext) -> None:
        """Take a whole emulator record of libxl. Raises StreamError."""
        key = (record.type, body.emulator, body.index)
        if key in self._emulators:
            raise refused(
                f"a second {record.name} of the same emulator",
                record.offset,
                expected="one",
                found=f"index {body.index} again",
            )
        self._emulators.add(key)
        if len(self._emulators) > c.EMULATOR_RECORDS_MAX:
            raise refused(
                "too many emulator records",
                record.offset,
                expected=f"at most {c.EMULATOR_RECORDS_MAX}",
                found="one more",
            )

    def _need_whole_epoch(self, kind: int, offset: int) -> None:
        if self._hvm:
            if Xc.HVM_CONTEXT not in self._state:
                raise _missing(kind, offset, "HVM_CONTEXT")
            return
        if Xc.SHARED_INFO not in self._state:
            raise _missing(kind, offset, "SHARED_INFO")
        basic = {vcpu for of, vcpu in self._vcpus if of == Xc.X86_PV_VCPU_BASIC}
        bare = sorted({vcpu for _, vcpu in self._vcpus} - basic)
        if not basic or bare:
            raise _missing(kind, offset, f"X86_PV_VCPU_BASIC of vcpu {bare[0] if bare else 0}")

    def _take_p2m(self, record: Record, body: P2mFrames) -> None:
        per_page = c.PAGE_SIZE // self._width
        frames = body.end_pfn // per_page - body.start_pfn // per_page + 1
        if len(body.frames) != frames:
            raise refused(
                f"wrong number of frames in X86_PV_P2M_FRAMES for pfns {body.start_pfn:#x} to {body.end_pfn:#x}",
                record.body_offset,
                expected=f"{frames}",
                found=f"{len(body.frames)}",
            )
        self._max_pfn = max(self._max_pfn, body.end_pfn)

    def _take_vcpu(self, record: Record, body: VcpuState) -> None:
        size = len(body.context)
        if not size:
            return
        if (record.type, body.vcpu) in self._vcpus:
            raise refused(
                f"wrong order: {record.name} of vcpu {body.vcpu} twice in an epoch",
                record.offset,
                expected="one",
                found="another",
            )
        wanted = c.VCPU_BASIC_SIZES[self._width]
        if record.type == Xc.X86_PV_VCPU_BASIC and size != wanted:
            raise refused(
                f"wrong length of the context in {record.name}",
                record.body_offset,
                expected=f"{wanted} bytes for a guest of {8 * self._width} bits",
                found=f"{size}",
            )
        self._vcpus.add((record.type, body.vcpu))


def _is_vcpu(kind: int) -> bool:
    return kind in (Xc.X86_PV_VCPU_BASIC, Xc.X86_PV_VCPU_EXTENDED, Xc.X86_PV_VCPU_XSAVE, Xc.X86_PV_VCPU_MSRS)


def _twice(kind: int, offset: int, period: str) -> StreamError:
    name = record_name(c.Layer.LIBXC, kind)
    return refused(f"wrong order: libxc's {name} twice in {period}", offset, expected="one", found=f"another {name}")


def _missing(kind: int, offset: int, needed: str) -> StreamError:
    name = record_name(c.Layer.LIBXC, kind)
    return refused(f"wrong order: libxc's {name} without {needed} before it", offset, expected=needed, found=name)
