"""libxenctrl and libxenguest: facts about a domain, its dirty bitmap, its virtual processors, its CPU policy.

Every call names what failed with errno. `DomainControl` is bound to one domain and preallocates what the
suspended window needs, so that nothing is allocated while the guest is down."""

from __future__ import annotations

import ctypes as ct
import hashlib
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from remus_agent.adapters.xen import structs as s
from remus_agent.adapters.xen.libs import Libraries, failed
from remus_agent.errors import GuestEnded, HypervisorError
from remus_agent.protocol.stream.constants import HvmParam

_INFO_BATCH: Final = 64
_PARAMS: Final = tuple(int(param) for param in HvmParam)

_Fetch = Callable[[int], int]


class Control:
    """One handle of libxenctrl. Use it from one thread at a time."""

    def __init__(self, libs: Libraries) -> None:
        self.libs = libs
        self._handle: int | None = libs.xc_interface_open(None, None, 0)
        if not self._handle:
            raise failed("xc_interface_open", operation="open the hypervisor", hint="the agent needs root in dom0")

    @property
    def handle(self) -> int:
        if self._handle is None:
            raise HypervisorError("the handle of libxenctrl is closed")
        return self._handle

    def close(self) -> None:
        """Safe to call twice."""
        handle, self._handle = self._handle, None
        if handle:
            self.libs.xc_interface_close(handle)

    def info(self, domid: int) -> s.DomainInfo | None:
        """What Xen knows of a domain; None if there is none with this id."""
        info = s.DomainInfo()
        found = self.libs.xc_domain_getinfolist(self.handle, domid, 1, ct.byref(info))
        if found < 0:
            raise failed("xc_domain_getinfolist")
        return info if found == 1 and info.domain == domid else None

    def domains(self) -> Iterator[s.DomainInfo]:
        """All domains, dom0 included."""
        first = 0
        batch = (s.DomainInfo * _INFO_BATCH)()
        while True:
            found = self.libs.xc_domain_getinfolist(self.handle, first, _INFO_BATCH, batch)
            if found < 0:
                raise failed("xc_domain_getinfolist")
            yield from batch[:found]
            if found < _INFO_BATCH:
                return
            first = batch[found - 1].domain + 1

    def has_pv_drivers(self, domid: int) -> bool:
        """Whether an HVM guest's kernel has told Xen how to interrupt it, the first thing its drivers for Xen do. Without
        them nobody in it would hear the request to suspend."""
        value = ct.c_uint64()
        if self.libs.xc_hvm_param_get(self.handle, domid, s.HVM_PARAM_CALLBACK_IRQ, ct.byref(value)):
            raise failed("xc_hvm_param_get CALLBACK_IRQ")
        return value.value != 0

    def unpause(self, domid: int) -> None:
        if self.libs.xc_domain_unpause(self.handle, domid):
            raise failed(f"xc_domain_unpause {domid}")

    def free_memory_kib(self) -> int:
        """Memory that Xen can give to new domains now, in KiB."""
        return int(self._physinfo().free_pages) * (s.PAGE_SIZE // 1024)

    def has(self, capability: int) -> bool:
        """Whether this Xen has a capability (PHYSCAP_*)."""
        return bool(self._physinfo().capabilities & capability)

    def host_policy_digest(self, kind: int = s.CPU_POLICY_HVM_MAX) -> str:
        """Digest of the CPUID and MSR policy that this host can give at most to a guest; kind: CPU_POLICY_*. Xen
        checks a restored guest's policy against this one, not against the raw one, which differs between
        processors of one model."""
        cpuid, msrs = self._policy(
            "xc_cpu_policy_get_system",
            lambda policy: self.libs.xc_cpu_policy_get_system(self.handle, kind, policy),
        )
        return hashlib.sha256(cpuid + b"|" + msrs).hexdigest()

    def domain_policy(self, domid: int) -> tuple[bytes, bytes]:
        """(xen_cpuid_leaf_t[], xen_msr_entry_t[]) of a domain, as the stream carries them."""
        return self._policy(
            f"xc_cpu_policy_get_domain {domid}",
            lambda policy: self.libs.xc_cpu_policy_get_domain(self.handle, domid, policy),
        )

    def _physinfo(self) -> s.PhysInfo:
        info = s.PhysInfo()
        if self.libs.xc_physinfo(self.handle, ct.byref(info)):
            raise failed("xc_physinfo")
        return info

    def _policy(self, name: str, fetch: _Fetch) -> tuple[bytes, bytes]:
        libs, leaves, entries = self.libs, ct.c_uint32(), ct.c_uint32()
        if libs.xc_cpu_policy_get_size(self.handle, ct.byref(leaves), ct.byref(entries)):
            raise failed("xc_cpu_policy_get_size")
        policy = libs.xc_cpu_policy_init()
        if not policy:
            raise failed("xc_cpu_policy_init")
        try:
            if fetch(policy):
                raise failed(name)
            cpuid, msrs = (s.CpuidLeaf * leaves.value)(), (s.MsrEntry * entries.value)()
            if libs.xc_cpu_policy_serialise(self.handle, policy, cpuid, ct.byref(leaves), msrs, ct.byref(entries)):
                raise failed("xc_cpu_policy_serialise")
        finally:
            libs.xc_cpu_policy_destroy(policy)
        return (
            bytes(cpuid)[: leaves.value * ct.sizeof(s.CpuidLeaf)],
            bytes(msrs)[: entries.value * ct.sizeof(s.MsrEntry)],
        )


class DomainControl:
    """The calls that a checkpoint of one domain needs."""

    def __init__(self, control: Control, domid: int, name: str, uuid: str) -> None:
        self.control, self.domid, self.name, self.uuid = control, domid, name, uuid
        self._libs = control.libs
        self._info = s.DomainInfo()
        self._value = ct.c_uint64()
        self._stats = s.ShadowOpStats()
        self._mode, self._khz, self._incarnation = ct.c_uint32(), ct.c_uint32(), ct.c_uint32()
        self._nsec = ct.c_uint64()
        self._context = ct.create_string_buffer(0)

    def info(self) -> s.DomainInfo:
        """What Xen knows of the domain now (overwritten by the next call). Raises GuestEnded if it is gone,
        or if another domain has its id."""
        info = self._info
        found = self._libs.xc_domain_getinfolist(self.control.handle, self.domid, 1, ct.byref(info))
        if found < 0:
            raise failed("xc_domain_getinfolist", self.name)
        if found == 0 or info.domain != self.domid or info.dying or info.uuid != self.uuid:
            raise GuestEnded("the domain is gone", domain=self.name, left="no such domain on this host")
        return info

    def frames(self) -> int:
        """Guest frame numbers go from 0 to one below this (xc_domain_maximum_gpfn; nearly 4 GiB's worth
        even for a tiny PVH guest, because its special pages are up there)."""
        if self._libs.xc_domain_maximum_gpfn(self.control.handle, self.domid, ct.byref(self._value)) < 0:
            raise failed("xc_domain_maximum_gpfn", self.name)
        return self._value.value + 1

    def populated(self, gfns: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of the frames hold ordinary guest memory, not Xen's own pages nor nothing. Raises on broken
        memory."""
        out = np.zeros(len(gfns), np.bool_)
        for start in range(0, len(gfns), s.PFN_BATCH_MAX):
            batch = np.array(gfns[start : start + s.PFN_BATCH_MAX], np.uint64)
            if self._libs.xc_get_pfn_type_batch(self.control.handle, self.domid, len(batch), batch.ctypes.data):
                raise failed("xc_get_pfn_type_batch", self.name)
            kinds = batch & s.PFN_TYPE_MASK
            if (kinds == s.PFN_TYPE_BROKEN).any():
                raise HypervisorError("Xen reports broken memory in the guest", domain=self.name)
            out[start : start + len(batch)] = kinds != s.PFN_TYPE_XTAB
        return out

    def logdirty_on(self) -> None:
        """From now on Xen notes which frames the guest, its devices and Xen itself write to. Starts anew if
        it was on."""
        call = self._libs.xc_shadow_control
        handle = self.control.handle
        if call(handle, self.domid, s.SHADOW_OP_ENABLE_LOGDIRTY, None, 0) == 0:
            return
        # An earlier user left it on (a killed agent, video memory tracking): off, then on, as
        # xg_sr_save.c does.
        self.logdirty_off()
        if call(handle, self.domid, s.SHADOW_OP_ENABLE_LOGDIRTY, None, 0):
            raise failed(
                "switching on log-dirty",
                self.name,
                hint="PCI passthrough and Xen builds without HAP or shadow paging for this guest type exclude it",
            )

    def logdirty_off(self) -> None:
        if self._libs.xc_shadow_control(self.control.handle, self.domid, s.SHADOW_OP_OFF, None, 0):
            raise failed("switching off log-dirty", self.name)

    def dirty_count(self) -> int:
        """About how many frames became dirty since the last CLEAN. Changes nothing."""
        self._logdirty(s.SHADOW_OP_PEEK, None, 0, 0)
        return int(self._stats.dirty_count)

    def clean(self, bitmap: DirtyBitmap, *, final: bool) -> None:
        """Take the dirty bitmap and clear it in Xen. final: the guest is down."""
        mode = s.SHADOW_LOGDIRTY_FINAL if final else 0
        got = self._logdirty(s.SHADOW_OP_CLEAN, bitmap.buffer, bitmap.frames, mode)
        if got != bitmap.frames:
            raise HypervisorError(f"the dirty bitmap covers {got} frames of {bitmap.frames}", domain=self.name)

    def prepare_context(self) -> None:
        """Reserve room for `hvm_context`; the size depends on the number of virtual processors only."""
        size = self._libs.xc_domain_hvm_getcontext(self.control.handle, self.domid, None, 0)
        if size <= 0:
            raise failed("xc_domain_hvm_getcontext", self.name)
        self._context = ct.create_string_buffer(size)

    def hvm_context(self) -> memoryview:
        """State of processors and platform devices; a view that the next call overwrites."""
        size = self._libs.xc_domain_hvm_getcontext(
            self.control.handle, self.domid, self._context, ct.sizeof(self._context)
        )
        if size <= 0:
            raise failed("xc_domain_hvm_getcontext", self.name)
        return memoryview(self._context).cast("B")[:size]

    def hvm_params(self) -> list[tuple[int, int]]:
        """(index, value) of the parameters that a stream carries."""
        get, handle, domid, value = self._libs.xc_hvm_param_get, self.control.handle, self.domid, self._value
        where = ct.byref(value)
        out = []
        for param in _PARAMS:
            if get(handle, domid, param, where):
                raise failed(f"xc_hvm_param_get {HvmParam(param).name}", self.name)
            out.append((param, value.value))
        return out

    def tsc_info(self) -> tuple[int, int, int, int]:
        """(mode, kHz, elapsed ns, incarnation) of the guest's time stamp counter, in the order of the
        record."""
        if self._libs.xc_domain_get_tsc_info(
            self.control.handle,
            self.domid,
            ct.byref(self._mode),
            ct.byref(self._nsec),
            ct.byref(self._khz),
            ct.byref(self._incarnation),
        ):
            raise failed("xc_domain_get_tsc_info", self.name)
        return self._mode.value, self._khz.value, self._nsec.value, self._incarnation.value

    def resume(self) -> None:
        """Let a suspended guest go on where it was; its suspend call returns 1 (cancelled), no device
        reconnects."""
        if self._libs.xc_domain_resume(self.control.handle, self.domid, 1):
            raise failed(
                "xc_domain_resume",
                self.name,
                left="the guest is suspended",
                hint=f"xl unpause does not help; restart remus-supervisor, it resumes domain {self.domid}",
            )

    def _logdirty(self, op: int, buffer: s.HypercallBuffer | None, frames: int, mode: int) -> int:
        got = self._libs.xc_logdirty_control(
            self.control.handle,
            self.domid,
            op,
            None if buffer is None else ct.byref(buffer),
            frames,
            mode,
            ct.byref(self._stats),
        )
        if got < 0:
            raise failed("xc_logdirty_control", self.name)
        return int(got)


class DirtyBitmap:
    """A hypercall-safe bitmap of guest frames, seen by numpy. Its memory may not be swapped, moved or
    forked."""

    def __init__(self, control: Control, frames: int) -> None:
        self._control, self.frames = control, frames
        words = -(-frames // 64)
        self._pages = -(-words * 8 // s.PAGE_SIZE)
        self.buffer = s.HypercallBuffer.unbounced()
        address = control.libs.xc__hypercall_buffer_alloc_pages(control.handle, ct.byref(self.buffer), self._pages)
        if not address:
            raise failed("xc__hypercall_buffer_alloc_pages")
        memory = (ct.c_uint64 * words).from_address(address)
        self.words: NDArray[np.uint64] = np.frombuffer(memoryview(memory).cast("B"), np.uint64)
        self.words[:] = 0

    @property
    def held_bytes(self) -> int:
        """Of memory."""
        return self._pages * s.PAGE_SIZE

    def gfns(self) -> NDArray[np.uint64]:
        """The frames whose bits are set, ascending."""
        return set_bits(self.words)

    def close(self) -> None:
        """Safe to call twice."""
        pages, self._pages = self._pages, 0
        if pages:
            self.words = np.zeros(0, np.uint64)
            self._control.libs.xc__hypercall_buffer_free_pages(self._control.handle, ct.byref(self.buffer), pages)


def set_bits(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Positions of the bits set in a little-endian bitmap of 64-bit words, ascending. Only words that are
    not zero are unpacked."""
    busy = np.flatnonzero(words)
    bits = np.unpackbits(words[busy].view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    rows, columns = np.nonzero(bits)
    return (busy[rows] * 64 + columns).astype(np.uint64)
