"""Numbers of Xen's three nested migration formats: xl's header, libxl's stream, libxc's stream.

Sources in Xen: docs/specs/libxl-migration-stream.pandoc, docs/specs/libxc-migration-stream.pandoc,
tools/xl/xl.h, tools/libs/light/libxl_sr_stream_format.h, tools/libs/guest/xg_sr_stream_format.h.
"""

from __future__ import annotations

from enum import Enum, IntEnum, StrEnum
from typing import Final

Buffer = bytes | bytearray | memoryview
"""A run of bytes that is written as it is; memoryviews are not copied."""

READ: Final = "read the stream"
"""Operation named by errors of the readers."""
WRITE: Final = "write the stream"
"""Operation named by errors of the writer."""

# xl: the file header

XL_MAGIC: Final = b"Xen saved domain, xl format\n \0 \r"
XL_BYTE_ORDER: Final = 0x01020304
XL_BYTE_ORDER_BIG_ENDIAN: Final = 0x04030201
"""The byte order mark of a big-endian host, read as little-endian."""
XL_FLAG_JSON: Final = 1
XL_FLAG_STREAM_V2: Final = 2
XL_FLAGS_KNOWN: Final = XL_FLAG_JSON | XL_FLAG_STREAM_V2
FOREIGN_MAGICS: Final = {
    b"LinuxGuestRecord": "an image of xend (`xm save`)",
    b"libvirt-xml\n \0 \r": "an image of libvirt (`virsh save`)",
}
"""First bytes of saved domains that other toolstacks write."""

# libxl: the stream around libxc's

LIBXL_IDENT: Final = 0x4C6962786C466D74
LIBXL_VERSION: Final = 2
LIBXL_OPTION_BIG_ENDIAN: Final = 1
LIBXL_OPTION_LEGACY: Final = 2

# libxc: memory and processor state

LIBXC_MARKER: Final = 0xFFFFFFFFFFFFFFFF
LIBXC_IDENT: Final = 0x58454E46
LIBXC_VERSION: Final = 3
"""What the writer emits (Xen 4.14 and later)."""
LIBXC_VERSIONS: Final = (2, 3)
"""What the readers accept (2: Xen 4.6 to 4.13)."""
LIBXC_OPTION_BIG_ENDIAN: Final = 1

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
PAGES_PER_RECORD: Final = 1024
"""Most pages the writer puts into a PAGE_DATA record, as Xen's own saver does (MAX_BATCH_SIZE)."""
PFN_MASK: Final = (1 << 52) - 1
PAGE_TYPE_SHIFT: Final = 60

RECORD_HEADER_SIZE: Final = 8
RECORD_ALIGN: Final = 8
RECORD_OPTIONAL: Final = 0x80000000
"""Record types with this bit may be skipped by a reader that does not know them."""

REC_LENGTH_MAX: Final = 128 << 20
"""Longest record body in bytes (REC_LENGTH_MAX of libxc; applied to libxl's records as well, which set no
limit)."""
CONFIG_LENGTH_MAX: Final = 1 << 20
"""Longest domain configuration in an xl header, bytes including its NUL."""

CPUID_LEAF_SIZE: Final = 24
MSR_ENTRY_SIZE: Final = 16
TSC_INFO_SIZE: Final = 24
HVM_PARAMS_MAX: Final = 1024
"""Most entries of an HVM_PARAMS record; Xen has 39 parameters (HVM_NR_PARAMS)."""
EMULATOR_XENSTORE_MAX: Final = 1 << 20
"""Longest EMULATOR_XENSTORE_DATA, bytes with its sub-header; libxl writes a few hundred."""
EMULATOR_RECORDS_MAX: Final = 64
"""Most emulator records between two checkpoints; libxl writes two."""

# PV guests

VCPUS_MAX: Final = 8192
"""Xen's own limit of virtual processors of a PV guest (MAX_VIRT_CPUS, xen/arch/x86/include/asm/config.h)."""
VCPU_BASIC_SIZES: Final = {8: 5168, 4: 2800}
"""Size of vcpu_guest_context_x86_{64,32}_t by the guest's width in bytes (tools/include/xen-foreign/reference.size)."""
VCPU_EXTENDED_MAX: Final = 128
VCPU_XSAVE_MIN: Final = 16
VCPU_MSR_SIZE: Final = 16
PV_LEVELS: Final = {8: 4, 4: 3}
"""Levels of page tables by the guest's width in bytes; other pairs do not exist (xg_sr_restore_x86_pv.c)."""


class Layer(StrEnum):
    """Whose records. Type numbers overlap: 4 is libxl's CHECKPOINT_END and libxc's X86_PV_VCPU_BASIC."""

    LIBXL = "libxl"
    LIBXC = "libxc"


class LibxlRecordType(IntEnum):
    """Records of the libxl stream."""

    END = 0
    LIBXC_CONTEXT = 1
    EMULATOR_XENSTORE_DATA = 2
    EMULATOR_CONTEXT = 3
    CHECKPOINT_END = 4
    CHECKPOINT_STATE = 5


class LibxcRecordType(IntEnum):
    """Records of the libxc stream."""

    END = 0x00
    PAGE_DATA = 0x01
    X86_PV_INFO = 0x02
    X86_PV_P2M_FRAMES = 0x03
    X86_PV_VCPU_BASIC = 0x04
    X86_PV_VCPU_EXTENDED = 0x05
    X86_PV_VCPU_XSAVE = 0x06
    SHARED_INFO = 0x07
    X86_TSC_INFO = 0x08
    HVM_CONTEXT = 0x09
    HVM_PARAMS = 0x0A
    TOOLSTACK = 0x0B
    X86_PV_VCPU_MSRS = 0x0C
    VERIFY = 0x0D
    CHECKPOINT = 0x0E
    CHECKPOINT_DIRTY_PFN_LIST = 0x0F
    STATIC_DATA_END = 0x10
    X86_CPUID_POLICY = 0x11
    X86_MSR_POLICY = 0x12


class DomainType(IntEnum):
    """Guest types of libxc's domain header. A PVH guest is of type HVM."""

    PV = 1
    HVM = 2


class GuestType(Enum):
    """How Xen runs the guest, in libxl's words; libxc's headers call a PVH guest HVM."""

    PVH = "pvh"
    HVM = "hvm"
    PV = "pv"


class EmulatorId(IntEnum):
    """Who wrote an emulator record. UNKNOWN: converted from a legacy image."""

    UNKNOWN = 0
    QEMU_TRADITIONAL = 1
    QEMU_UPSTREAM = 2


class CheckpointStateId(IntEnum):
    """CHECKPOINT_STATE, of COLO only. NEW travels with the stream, the others back to its sender."""

    NEW = 0
    SVM_SUSPENDED = 1
    SVM_READY = 2
    SVM_RESUMED = 3


class PageType(IntEnum):
    """Types in bits 63:60 of a PAGE_DATA entry. The last three carry no content."""

    NOTAB = 0x0
    L1TAB = 0x1
    L2TAB = 0x2
    L3TAB = 0x3
    L4TAB = 0x4
    L1TAB_PINNED = 0x9
    L2TAB_PINNED = 0xA
    L3TAB_PINNED = 0xB
    L4TAB_PINNED = 0xC
    BROKEN = 0xD
    XALLOC = 0xE
    XTAB = 0xF


class HvmParam(IntEnum):
    """HVM parameters that Xen's saver puts into HVM_PARAMS when they are not zero (xg_sr_save_x86_hvm.c)."""

    STORE_PFN = 1
    IOREQ_PFN = 5
    BUFIOREQ_PFN = 6
    VIRIDIAN = 9
    IDENT_PT = 12
    CONSOLE_PFN = 17
    ACPI_IOPORTS_LOCATION = 19
    PAGING_RING_PFN = 27
    MONITOR_RING_PFN = 28
    SHARING_RING_PFN = 29
    IOREQ_SERVER_PFN = 32
    NR_IOREQ_SERVER_PAGES = 33
    VM_GENERATION_ID_ADDR = 34
    X87_FIP_WIDTH = 36
    VM86_TSS_SIZED = 37
    MCA_CAP = 38
