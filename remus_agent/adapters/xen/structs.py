"""C structures and constants of Xen 4.17 to 4.20, as ctypes. No numpy here: the supervisor loads this.

Sources in Xen: xen/include/public/domctl.h, sysctl.h, sched.h, arch-x86/cpuid.h; tools/include/xenctrl.h.
The layouts below are identical in 4.17 and 4.20 (compared header by header)."""

from __future__ import annotations

import ctypes as ct
from enum import IntEnum
from typing import Final

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
PROT_READ: Final = 1

SHADOW_OP_OFF: Final = 0
SHADOW_OP_ENABLE_LOGDIRTY: Final = 2
SHADOW_OP_CLEAN: Final = 11
SHADOW_OP_PEEK: Final = 12
SHADOW_LOGDIRTY_FINAL: Final = 1
"""Mode of CLEAN on a guest that is down: pages that Xen itself keeps mapped for writing count as dirty
too."""

CPU_POLICY_PV_MAX: Final = 2
CPU_POLICY_HVM_MAX: Final = 3
"""XEN_SYSCTL_cpu_policy_{pv,hvm}_max: all that Xen can give a PV guest, or an HVM or PVH guest, on this host; a
restore is checked against it."""

PHYSCAP_PV: Final = 1 << 1
PHYSCAP_SHADOW: Final = 1 << 4
"""XEN_SYSCTL_PHYSCAP_*, bits of PhysInfo.capabilities: Xen can run PV guests; Xen is built with shadow paging. `xl info`
shows them among its virt_caps."""

HVM_PARAM_CALLBACK_IRQ: Final = 0
"""How the kernel in an HVM guest wants to be interrupted; 0 until its drivers for Xen have said so (hvm/params.h)."""

PFN_BATCH_MAX: Final = 1024
"""Most frames one XEN_DOMCTL_getpageframeinfo3 takes."""
PFN_TYPE_XTAB: Final = 0xF << 28
PFN_TYPE_MASK: Final = 0xF << 28
PFN_TYPE_BROKEN: Final = 0xD << 28


class Shutdown(IntEnum):
    """Why a domain is shut down (SHUTDOWN_* of sched.h)."""

    POWEROFF = 0
    REBOOT = 1
    SUSPEND = 2
    CRASH = 3
    WATCHDOG = 4
    SOFT_RESET = 5


class DomainInfo(ct.Structure):
    """xc_domaininfo_t = struct xen_domctl_getdomaininfo, 112 bytes."""

    _fields_ = (
        ("domain", ct.c_uint16),
        ("pad1", ct.c_uint16),
        ("flags", ct.c_uint32),
        ("tot_pages", ct.c_uint64),
        ("max_pages", ct.c_uint64),
        ("outstanding_pages", ct.c_uint64),
        ("shr_pages", ct.c_uint64),
        ("paged_pages", ct.c_uint64),
        ("shared_info_frame", ct.c_uint64),
        ("cpu_time", ct.c_uint64),
        ("nr_online_vcpus", ct.c_uint32),
        ("max_vcpu_id", ct.c_uint32),
        ("ssidref", ct.c_uint32),
        ("handle", ct.c_uint8 * 16),
        ("cpupool", ct.c_uint32),
        ("gpaddr_bits", ct.c_uint8),
        ("pad2", ct.c_uint8 * 7),
        ("emulation_flags", ct.c_uint32),
        ("misc_flags", ct.c_uint32),
    )

    @property
    def dying(self) -> bool:
        """Being destroyed."""
        return bool(self.flags & 1)

    @property
    def hvm_container(self) -> bool:
        """HVM or PVH, in contrast to PV."""
        return bool(self.flags & 2)

    @property
    def paused(self) -> bool:
        """Paused by the toolstack."""
        return bool(self.flags & 8)

    @property
    def shutdown(self) -> int | None:
        """The reason the guest shut down with (a `Shutdown` where known), None while it runs."""
        return self.flags >> 16 & 0xFF if self.flags & 4 else None

    @property
    def suspended(self) -> bool:
        """Down by its own consent, to be resumed."""
        return self.shutdown == Shutdown.SUSPEND

    @property
    def uuid(self) -> str:
        """The domain's UUID, lower case with dashes."""
        digits = bytes(self.handle).hex()
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


class HypercallBuffer(ct.Structure):
    """xc_hypercall_buffer_t, 40 bytes. A buffer that is not bounced: dir 0, ubuf -1
    (HYPERCALL_BUFFER_INIT_NO_BOUNCE)."""

    _fields_ = (
        ("hbuf", ct.c_void_p),
        ("param_shadow", ct.c_void_p),
        ("dir", ct.c_int),
        ("ubuf", ct.c_void_p),
        ("sz", ct.c_size_t),
    )

    @classmethod
    def unbounced(cls) -> HypercallBuffer:
        return cls(None, None, 0, ct.c_void_p(-1).value, 0)


class ShadowOpStats(ct.Structure):
    """xc_shadow_op_stats_t. dirty_count: how often a page became dirty since the last CLEAN."""

    _fields_ = (("fault_count", ct.c_uint32), ("dirty_count", ct.c_uint32))


class CpuidLeaf(ct.Structure):
    """xen_cpuid_leaf_t, 24 bytes: leaf, subleaf, a, b, c, d."""

    _fields_ = (("words", ct.c_uint32 * 6),)


class MsrEntry(ct.Structure):
    """xen_msr_entry_t, 16 bytes."""

    _fields_ = (("idx", ct.c_uint32), ("flags", ct.c_uint32), ("val", ct.c_uint64))


class PhysInfo(ct.Structure):
    """xc_physinfo_t = struct xen_sysctl_physinfo."""

    _fields_ = (
        ("threads_per_core", ct.c_uint32),
        ("cores_per_socket", ct.c_uint32),
        ("nr_cpus", ct.c_uint32),
        ("max_cpu_id", ct.c_uint32),
        ("nr_nodes", ct.c_uint32),
        ("max_node_id", ct.c_uint32),
        ("cpu_khz", ct.c_uint32),
        ("capabilities", ct.c_uint32),
        ("arch_capabilities", ct.c_uint32),
        ("pad", ct.c_uint32),
        ("total_pages", ct.c_uint64),
        ("free_pages", ct.c_uint64),
        ("scrub_pages", ct.c_uint64),
        ("outstanding_pages", ct.c_uint64),
        ("max_mfn", ct.c_uint64),
        ("hw_cap", ct.c_uint32 * 8),
    )
