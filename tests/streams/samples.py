"""Records, and streams of every guest type, version and ending, for the tests of the stream codec.

Nothing here comes from the reader; records are packed from the specifications' layouts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from remus_agent.protocol.stream.framing import pack_record

CONFIG = b'{"c_info":{"name":"g"}}'
PV, HVM = 1, 2
BASIC_64 = 5168
CPU_BYTES = 1032


def xl_header(config: bytes = CONFIG, flags: int = 3) -> bytes:
    """xl's header; flags: 1 JSON, 2 stream version 2."""
    text = struct.pack("<I", len(config) + 1) + config + b"\0"
    return b"Xen saved domain, xl format\n \0 \r" + struct.pack("<IIII", 0x01020304, flags, 0, len(text)) + text


def libxl_header() -> bytes:
    """libxl's header and LIBXC_CONTEXT."""
    return b"LibxlFmt" + struct.pack(">II", 2, 0) + pack_record(1)


def libxc_headers(kind: int = HVM, version: int = 3, xen: tuple[int, int] = (4, 17)) -> bytes:
    """Image header and domain header."""
    image = struct.pack(">QIIHHI", (1 << 64) - 1, 0x58454E46, version, 0, 0, 0)
    return image + struct.pack("<IHHII", kind, 12, 0, *xen)


def policies() -> bytes:
    """X86_CPUID_POLICY, X86_MSR_POLICY."""
    return pack_record(0x11, struct.pack("<6I", 1, 0xFFFFFFFF, 2, 3, 4, 5)) + pack_record(
        0x12, struct.pack("<IIQ", 0xCE, 0, 7)
    )


def start(kind: int = HVM, version: int = 3, *, static: bytes | None = None) -> bytes:
    """Everything before memory."""
    if static is None:
        static = pv_info() if kind == PV else b""
        if version >= 3:
            static += policies() + pack_record(0x10)
    return xl_header() + libxl_header() + libxc_headers(kind, version) + static


def page_data(entries: Iterable[tuple[int, int]], fill: int = 0x5A) -> bytes:
    """PAGE_DATA of (page type, pfn), content of one byte value."""
    rows = list(entries)
    pages = sum(kind < 0xD for kind, _ in rows)
    words = b"".join(struct.pack("<Q", kind << 60 | pfn) for kind, pfn in rows)
    return pack_record(1, struct.pack("<II", len(rows), 0) + words + bytes([fill]) * (4096 * pages))


def tsc_info() -> bytes:
    """X86_TSC_INFO."""
    return pack_record(8, struct.pack("<IIQII", 0, 2_000_000, 1 << 33, 1, 0))


def save_record(kind: int, instance: int, body: bytes) -> bytes:
    """One of Xen's HVM save records."""
    return struct.pack("<HHI", kind, instance, len(body)) + body


def context(*, rip: int = 0x1000, vcpus: int = 1, more: bytes = b"") -> bytes:
    """An HVM context: HEADER, CPU for each vcpu with only rip set, whatever else, END."""
    body = save_record(1, 0, struct.pack("<IIQII", 0x54381286, 1, 0, 0x600F12, 2_000_000))
    cpu = bytearray(CPU_BYTES)
    struct.pack_into("<Q", cpu, 512 + 8 * 16, rip)
    body += b"".join(save_record(2, number, bytes(cpu)) for number in range(vcpus))
    return body + more + save_record(0, 0, b"")


def hvm_blob(*, rip: int = 0xFFFFFFFF81000000) -> bytes:
    """A whole HVM context of one vcpu: HEADER, CPU, TSC_ADJUST, a type of the future, END."""
    return context(rip=rip, more=save_record(19, 0, struct.pack("<Q", 5)) + save_record(77, 1, b"later"))


def hvm_state(context: bytes | None = None) -> bytes:
    """X86_TSC_INFO, HVM_CONTEXT, HVM_PARAMS."""
    params = struct.pack("<IIQQQQ", 2, 0, 1, 0xFEFF8, 17, 0xFEFF9)
    return tsc_info() + pack_record(9, hvm_blob() if context is None else context) + pack_record(0xA, params)


def pv_info(width: int = 8, levels: int = 4) -> bytes:
    """X86_PV_INFO."""
    return pack_record(2, struct.pack("<BBHI", width, levels, 0, 0))


def p2m_frames(first: int = 0, last: int = 0x3FF, frames: Iterable[int] = (7, 8)) -> bytes:
    """X86_PV_P2M_FRAMES of a 64-bit guest: 512 pfns a frame."""
    return pack_record(3, struct.pack("<II", first, last) + b"".join(struct.pack("<Q", frame) for frame in frames))


def vcpu(kind: int, number: int, context: bytes) -> bytes:
    """X86_PV_VCPU_BASIC (4), EXTENDED (5), XSAVE (6) or MSRS (0xC)."""
    return pack_record(kind, struct.pack("<II", number, 0) + context)


def vcpu_records(number: int) -> list[bytes]:
    """All four records of one vcpu."""
    return [
        vcpu(4, number, bytes([number + 1]) * BASIC_64),
        vcpu(5, number, bytes(128)),
        vcpu(6, number, bytes(16 + 64)),
        vcpu(0xC, number, bytes(32)),
    ]


def shared_info() -> bytes:
    """SHARED_INFO."""
    return pack_record(7, bytes(range(256)) * 16)


def pv_state(vcpus: int = 1) -> bytes:
    """X86_TSC_INFO, SHARED_INFO, the records of some vcpus."""
    return tsc_info() + shared_info() + b"".join(b"".join(vcpu_records(number)) for number in range(vcpus))


def emulator(xenstore: bytes = b"physmap/f0000000/start_addr\x000xf0000000\0", index: int = 0) -> bytes:
    """EMULATOR_XENSTORE_DATA and EMULATOR_CONTEXT of upstream QEMU."""
    sub = struct.pack("<II", 2, index)
    return pack_record(2, sub + xenstore) + pack_record(3, sub + b"QEVM state")


CHECKPOINT = pack_record(0xE)
CHECKPOINT_END = pack_record(4)
END = pack_record(0)
PLAIN_END = END + END


def hvm_plain(version: int = 3) -> bytes:
    """A plain stream of an HVM guest with its device model."""
    return start(HVM, version) + page_data([(0, 1), (0xE, 2)]) + hvm_state() + END + emulator() + END


def pvh_checkpointed() -> bytes:
    """A stream of a PVH guest with three epochs, the last without dirty pages, ended by its sender."""
    epoch = page_data([(0, 3)]) + page_data([(0xE, 4)]) + hvm_state() + CHECKPOINT + CHECKPOINT_END
    return start() + page_data([(0, 1), (0xF, 2)]) + epoch * 2 + hvm_state() + PLAIN_END


def hvm_checkpointed() -> bytes:
    """Two epochs of an HVM guest, as `xl remus` leaves them: no END."""
    epoch = page_data([(0, 3)]) + hvm_state() + CHECKPOINT + emulator() + CHECKPOINT_END
    return start() + page_data([(0, 1)]) + epoch * 2


def pv_plain(version: int = 3) -> bytes:
    """A plain stream of a 64-bit PV guest with two vcpus, page tables and a verification pass."""
    pages = [(0, 1), (0x9, 2), (0x4, 0x3FF), (0xD, 4)]
    again = pack_record(0xD) + page_data([(0, 1)])
    return start(PV, version) + p2m_frames() + page_data(pages) + again + pv_state(2) + PLAIN_END


def pv_checkpointed() -> bytes:
    """Two epochs of a PV guest, then a plain end."""
    epoch = page_data([(0, 1)]) + pv_state() + CHECKPOINT + CHECKPOINT_END
    return start(PV) + p2m_frames() + page_data([(0, 1)]) + epoch * 2 + pv_state() + PLAIN_END


def colo() -> bytes:
    """Two checkpoints of COLO."""
    epoch = page_data([(0, 3)]) + hvm_state() + CHECKPOINT + emulator() + CHECKPOINT_END
    new = pack_record(5, struct.pack("<II", 0, 0))
    return start() + page_data([(0, 1)]) + epoch + new + epoch


def with_optional_records() -> bytes:
    """Optional records of both layers, some with padding."""
    extra = pack_record(0x80000013, b"later")
    whole = start()[:-8] + extra + start()[-8:] + page_data([(0, 1)]) + extra + hvm_state() + END
    return whole + pack_record(0x80000006, b"x") + END


WHOLE = {
    "hvm_plain": hvm_plain(),
    "hvm_plain_version_2": hvm_plain(2),
    "pvh_checkpointed": pvh_checkpointed(),
    "pv_plain": pv_plain(),
    "pv_plain_version_2": pv_plain(2),
    "pv_checkpointed": pv_checkpointed(),
    "with_optional_records": with_optional_records(),
}
"""Streams that end with END."""
OPEN = {"hvm_checkpointed": hvm_checkpointed()}
"""Streams that end between two epochs, as those of `xl remus` do."""
