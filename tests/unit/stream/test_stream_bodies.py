"""Typed bodies: their bytes, and what each parser refuses."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from streams import samples

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import bodies, records
from remus_agent.protocol.stream.constants import (
    EMULATOR_XENSTORE_MAX,
    HVM_PARAMS_MAX,
    CheckpointStateId,
    EmulatorId,
    Layer,
)
from remus_agent.protocol.stream.reader import iter_records

LIBXC, LIBXL = Layer.LIBXC, Layer.LIBXL
SUB = struct.pack("<II", 2, 7)
VCPU = struct.pack("<II", 3, 0)


def body_of(kind: int, body: bytes, layer: Layer = LIBXC, *, hvm: bool = False, colo: bool = False) -> records.Body:
    """The checked, typed body of one record at offset 1000."""
    (record,) = iter_records(records.pack_record(kind, body), layer=layer, offset=1000, ordinal=9)
    return records.check_record(record, hvm=hvm, colo=colo)


def test_pv_info() -> None:
    assert body_of(2, b"\x08\x04" + bytes(6)) == bodies.PvInfo(8, 4)
    assert body_of(2, b"\x04\x03" + bytes(6)) == bodies.PvInfo(4, 3)


def test_p2m_frames() -> None:
    body = body_of(3, struct.pack("<IIQQ", 0, 0x3FF, 7, 1 << 40))
    assert isinstance(body, bodies.P2mFrames)
    assert (body.start_pfn, body.end_pfn, body.frames.tolist()) == (0, 0x3FF, [7, 1 << 40])


@pytest.mark.parametrize(("kind", "size"), [(4, 5168), (4, 2800), (5, 128), (6, 16), (6, 4096), (0xC, 32)])
def test_vcpu_state(kind: int, size: int) -> None:
    body = body_of(kind, VCPU + bytes(size))
    assert isinstance(body, bodies.VcpuState)
    assert (body.vcpu, len(body.context)) == (3, size)


@pytest.mark.parametrize("kind", [4, 5, 6, 0xC])
def test_vcpu_records_without_content_are_tolerated(kind: int) -> None:
    """Erratum 1: Xen 4.6 to 4.8 wrote such records, with whatever number of a vcpu."""
    assert body_of(kind, struct.pack("<II", 0xFFFFFFFF, 0)) == bodies.VcpuState(0xFFFFFFFF, memoryview(b""))


def test_hvm_params_without_content_are_tolerated() -> None:
    assert body_of(0xA, bytes(8), hvm=True) == []


def test_policies_are_rows() -> None:
    cpuid = body_of(0x11, struct.pack("<6I", 1, 2, 3, 4, 5, 6) * 2)
    assert isinstance(cpuid, np.ndarray)
    assert cpuid[1].item() == (1, 2, 3, 4, 5, 6)
    assert cpuid.dtype.names == ("leaf", "subleaf", "a", "b", "c", "d")
    msr = body_of(0x12, struct.pack("<IIQ", 0xCE, 0, 1 << 63))
    assert isinstance(msr, np.ndarray)
    assert (msr["index"][0], msr["value"][0]) == (0xCE, 1 << 63)


def test_blobs_are_views() -> None:
    shared = body_of(7, bytes(4096))
    context = body_of(9, b"blob", hvm=True)
    assert isinstance(shared, memoryview)
    assert isinstance(context, memoryview)
    assert (len(shared), bytes(context)) == (4096, b"blob")


def test_records_that_never_stand_in_a_stream_have_bodies_too() -> None:
    """TOOLSTACK and CHECKPOINT_DIRTY_PFN_LIST: a tool may still want to see what is in them."""
    toolstack, dirty = iter_records(
        records.pack_record(0xB, b"opaque") + records.pack_record(0xF, struct.pack("<QQ", 5, 6))
    )
    assert records.parse_body(toolstack) == b"opaque"
    pfns = records.parse_body(dirty)
    assert isinstance(pfns, np.ndarray)
    assert pfns.tolist() == [5, 6]
    with pytest.raises(StreamError, match="multiple of 8 bytes, found 7"):
        bodies.parse_dirty_pfn_list(memoryview(bytes(7)), 0)


def test_emulator_records() -> None:
    pairs = b"physmap/f0000000/size\x000x1000\0name\0\0"
    assert body_of(2, SUB + pairs, LIBXL, hvm=True) == bodies.EmulatorXenstoreData(
        EmulatorId.QEMU_UPSTREAM, 7, (("physmap/f0000000/size", "0x1000"), ("name", ""))
    )
    assert body_of(2, SUB, LIBXL, hvm=True) == bodies.EmulatorXenstoreData(EmulatorId.QEMU_UPSTREAM, 7, ())
    assert body_of(3, SUB + b"QEVM", LIBXL, hvm=True) == bodies.EmulatorContext(
        EmulatorId.QEMU_UPSTREAM, 7, memoryview(b"QEVM")
    )


@pytest.mark.parametrize("state", list(CheckpointStateId))
def test_checkpoint_state(state: CheckpointStateId) -> None:
    assert body_of(5, struct.pack("<II", state, 0), LIBXL, hvm=True, colo=True) == bodies.CheckpointState(state)


@pytest.mark.parametrize("kind", [0, 0xD, 0xE, 0x10, 0x80000001])
def test_empty_and_optional_records_have_no_body(kind: int) -> None:
    assert body_of(kind, b"") is None


@pytest.mark.parametrize(
    ("kind", "body", "message", "offset"),
    [
        (2, b"\x08\x03" + bytes(6), "8 bytes and 3 levels", 1008),
        (2, b"\x02\x02" + bytes(6), "2 bytes and 2 levels", 1008),
        (2, b"\x08\x04\x01" + bytes(5), "reserved field of X86_PV_INFO", 1010),
        (2, b"\x08\x04" + bytes(5) + b"\x01", "reserved field of X86_PV_INFO", 1010),
        (2, bytes(16), "wrong length of X86_PV_INFO; expected 8 bytes, found 16", 1004),
        (3, bytes(8), "wrong length of X86_PV_P2M_FRAMES; expected at least 16 bytes in steps of 8", 1004),
        (3, bytes(20), "in steps of 8, found 20", 1004),
        (3, struct.pack("<IIQ", 2, 1, 0), "ends before it starts; expected an end of at least 0x2, found 0x1", 1008),
        (4, VCPU + bytes(5167), "X86_PV_VCPU_BASIC; expected 5168 bytes or 2800 bytes, found 5167", 1008),
        (4, VCPU + bytes(5169), "expected 8 to 5176 bytes, found 5177", 1004),
        (4, bytes(7), "wrong length of X86_PV_VCPU_BASIC", 1004),
        (4, struct.pack("<II", 3, 1) + bytes(5168), "reserved field of the state of a vcpu", 1012),
        (4, struct.pack("<II", 8192, 0) + bytes(5168), "no PV guest has this vcpu; expected below 8192", 1008),
        (5, VCPU + bytes(129), "wrong length of X86_PV_VCPU_EXTENDED", 1004),
        (6, VCPU + bytes(15), "X86_PV_VCPU_XSAVE; expected at least 16 bytes, found 15", 1008),
        (0xC, VCPU + bytes(17), "X86_PV_VCPU_MSRS; expected at least 8 bytes in steps of 16, found 25", 1004),
        (7, bytes(4095), "wrong length of SHARED_INFO; expected 4096 bytes, found 4095", 1004),
        (0xD, b"x", "wrong length of VERIFY; expected none", 1004),
        (0xB, b"", "TOOLSTACK records do not belong into this stream: it was for the time", 1000),
        (0xF, b"", "COLO's secondary sends it back", 1000),
        (0x7FFFFFFF, b"", "unknown mandatory libxc record 0x7fffffff", 1000),
    ],
)
def test_bodies_of_a_pv_guest_that_are_refused(kind: int, body: bytes, message: str, offset: int) -> None:
    with pytest.raises(StreamError, match=message) as caught:
        body_of(kind, body)
    error = caught.value
    assert (error.offset, error.layer, error.ordinal, error.start) == (offset, "libxc", 9, 1000)
    assert (error.expected, error.found) != (None, None)
    assert f"(libxc record 9, {error.record} from byte 1000, at byte {offset})" in str(error)


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (2, b"", "wrong length of EMULATOR_XENSTORE_DATA"),
        (2, SUB + bytes(EMULATOR_XENSTORE_MAX), "wrong length of EMULATOR_XENSTORE_DATA"),
        (2, struct.pack("<II", 3, 0), "unknown emulator in EMULATOR_XENSTORE_DATA; expected 0 to 2, found 3"),
        (3, struct.pack("<II", 9, 0), "unknown emulator in EMULATOR_CONTEXT"),
        (2, SUB + b"key\0value", "is cut off; expected a NUL at its end, found 0x65"),
        (2, SUB + b"key\0", "a key without a value"),
        (2, SUB + b"a key\0value\0", "bad key .* found b'a key'"),
        (2, SUB + b"\0value\0", "bad key"),
        (2, SUB + b"key\0v\xc3\xa4lue\0", "bad value .* expected ASCII"),
        (5, struct.pack("<II", 4, 0), "unknown CHECKPOINT_STATE; expected 0 to 3, found 4"),
        (5, struct.pack("<II", 0, 1), "reserved field of CHECKPOINT_STATE"),
        (5, bytes(16), "wrong length of CHECKPOINT_STATE"),
    ],
)
def test_bodies_of_libxl_that_are_refused(kind: int, body: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=message) as caught:
        body_of(kind, body, LIBXL, hvm=True, colo=True)
    assert (caught.value.layer, caught.value.ordinal) == ("libxl", 9)


def test_checkpoint_state_is_refused_outside_colo_and_emulators_of_pv_guests_always() -> None:
    with pytest.raises(StreamError, match="exist in streams of COLO only"):
        body_of(5, bytes(8), LIBXL, hvm=True)
    for kind in (2, 3):
        with pytest.raises(StreamError, match="in the stream of a PV guest; expected no emulator"):
            body_of(kind, SUB, LIBXL)


def test_the_number_of_hvm_params_is_limited() -> None:
    most = struct.pack("<II", HVM_PARAMS_MAX, 0) + bytes(16 * HVM_PARAMS_MAX)
    body = body_of(0xA, most, hvm=True)
    assert isinstance(body, list)
    assert len(body) == HVM_PARAMS_MAX
    more = struct.pack("<II", HVM_PARAMS_MAX + 1, 0) + bytes(16 * (HVM_PARAMS_MAX + 1))
    with pytest.raises(StreamError, match="wrong length of HVM_PARAMS"):
        body_of(0xA, more, hvm=True)
    with pytest.raises(StreamError, match="too many entries"):
        bodies.parse_hvm_params(memoryview(more), 0)


@pytest.mark.parametrize(
    ("parse", "message"),
    [
        (bodies.parse_pv_info, "wrong length"),
        (bodies.parse_p2m_frames, "no room for its header"),
        (bodies.parse_vcpu_basic, "no room for its header"),
        (bodies.parse_vcpu_xsave, "no room for its header"),
        (bodies.parse_emulator_context, "no room for its header"),
        (bodies.parse_emulator_xenstore_data, "no room for its header"),
        (bodies.parse_checkpoint_state, "wrong length"),
        (bodies.parse_cpuid_policy, "wrong length"),
        (bodies.parse_msr_policy, "wrong length"),
        (bodies.parse_tsc_info, "wrong length"),
        (bodies.parse_hvm_params, "no room for its header"),
    ],
)
def test_parsers_called_by_themselves_check_lengths_too(parse: object, message: str) -> None:
    assert callable(parse)
    with pytest.raises(StreamError, match=message):
        parse(memoryview(b"\0\0\0"), 0)
    with pytest.raises(StreamError, match="multiple of 8 bytes, found 9"):
        bodies.parse_p2m_frames(memoryview(bytes(9)), 0)
    with pytest.raises(StreamError, match="too long"):
        bodies.parse_emulator_xenstore_data(memoryview(SUB + bytes(EMULATOR_XENSTORE_MAX)), 0)


def test_an_error_says_where_also_as_data() -> None:
    with pytest.raises(StreamError) as caught:
        body_of(8, bytes(20) + b"\x01\0\0\0")
    facts = caught.value.as_dict()
    assert facts == {
        "code": "stream",
        "message": "the reserved field of X86_TSC_INFO is set; expected 0, found 0x1 "
        "(libxc record 9, X86_TSC_INFO from byte 1000, at byte 1028)",
        "operation": "read the stream",
        "offset": 1028,
        "layer": "libxc",
        "record": "X86_TSC_INFO",
        "ordinal": 9,
        "start": 1000,
        "expected": "0",
        "found": "0x1",
    }
    assert samples.tsc_info()[:8] == struct.pack("<II", 8, 24)


def test_an_error_without_a_record_still_has_its_offset() -> None:
    error = StreamError("something", offset=3)
    assert str(error) == "something (at byte 3)"
    assert error.as_dict() == {"code": "stream", "message": "something (at byte 3)", "offset": 3}
    error.locate("xl", "the xl header", start=0)
    error.locate("libxc", "END", start=9, ordinal=2)
    assert str(error) == "something (xl, the xl header from byte 0, at byte 3)"
