"""The headers, byte for byte from the specifications, and what each parser refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import headers
from remus_agent.protocol.stream.constants import CONFIG_LENGTH_MAX, DomainType

XL = (
    b"Xen saved domain, xl format\n \0 \r"
    b"\x04\x03\x02\x01"  # byte order
    b"\x03\0\0\0"  # mandatory: JSON, stream version 2
    b"\0\0\0\0"  # optional
    b"\x07\0\0\0"  # optional data
)
XL_OPTIONAL = b"\x03\0\0\0{}\0"
LIBXL = b"LibxlFmt\0\0\0\x02\0\0\0\0"
IMAGE = b"\xff" * 8 + b"XENF\0\0\0\x03\0\0\0\0\0\0\0\0"
DOMAIN = b"\x02\0\0\0\x0c\0\0\0\x04\0\0\0\x11\0\0\0"


def test_xl_header_is_written_as_xl_writes_it() -> None:
    assert headers.pack_xl_header(b"{}") == XL + XL_OPTIONAL


def test_xl_header_is_read() -> None:
    assert headers.parse_xl_fixed(XL) == (7, True, 0)
    header = headers.parse_xl_optional(XL_OPTIONAL + b"more", json=True, optional_flags=8)
    assert header == headers.XlHeader(b"{}", True, 8, b"more")


def test_an_xl_cfg_configuration_is_told_apart_from_json() -> None:
    assert headers.parse_xl_fixed(XL[:36] + b"\x02" + XL[37:]) == (7, False, 0)


@pytest.mark.parametrize(
    ("at", "to", "message"),
    [
        (0, b"LinuxGuestRecord", "xend"),
        (0, b"libvirt-xml\n \0 \r", "libvirt"),
        (0, LIBXL, "a libxl stream without its xl header"),
        (0, b"\xff" * 8, "a libxc stream without"),
        (0, b"yen", "bad magic"),
        (32, b"\x01\x02\x03\x04", "the xl header is big-endian"),
        (32, b"\x04\x03\x02\x00", "unknown byte order"),
        (36, b"\x07", "unknown mandatory flags; expected none but 0x3, found 0x4"),
        (36, b"\x01", "legacy image"),
        (44, b"\x04", "configuration in the xl header; expected 5 to 1048580 bytes, found 4"),
        (44, (CONFIG_LENGTH_MAX + 5).to_bytes(4, "little"), "expected 5 to 1048580 bytes, found 1048581"),
    ],
)
def test_xl_headers_that_are_refused(at: int, to: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=message) as caught:
        headers.parse_xl_fixed(XL[:at] + to + XL[at + len(to) :])
    assert caught.value.operation == "read the stream"
    assert caught.value.offset == at


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x04\0\0\0{}\0", "does not fit"),
        (b"\0\0\0\0{}\0", "does not fit"),
        (b"\x02\0\0\0{}\0", "NUL"),
        (b"\x03\0\0\0{\0\0", "NUL"),
    ],
)
def test_configurations_with_wrong_lengths_are_refused(raw: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        headers.parse_xl_optional(raw, json=True, optional_flags=0)


@pytest.mark.parametrize("config", [b"{\0}", b"x" * CONFIG_LENGTH_MAX])
def test_configurations_that_cannot_be_written(config: bytes) -> None:
    with pytest.raises(StreamError) as caught:
        headers.pack_xl_header(config)
    assert caught.value.operation == "write the stream"


def test_libxl_image_and_domain_header_bytes() -> None:
    assert headers.pack_libxl_header() == LIBXL
    assert headers.pack_image_header() == IMAGE
    assert headers.pack_domain_header((4, 17)) == DOMAIN
    assert headers.parse_libxl_header(LIBXL, 0) == headers.LibxlHeader(2, 0)
    assert headers.parse_image_header(IMAGE, 0) == headers.ImageHeader(3)
    assert headers.parse_image_header(IMAGE[:15] + b"\x02" + IMAGE[16:], 0) == headers.ImageHeader(2)
    assert headers.parse_domain_header(DOMAIN, 0) == headers.DomainHeader(DomainType.HVM, (4, 17))


@pytest.mark.parametrize(
    ("parse", "raw", "at", "to", "message"),
    [
        (headers.parse_libxl_header, LIBXL, 0, b"l", "bad magic"),
        (headers.parse_libxl_header, LIBXL, 11, b"\x03", "unknown version of the libxl stream; expected 2, found 3"),
        (headers.parse_libxl_header, LIBXL, 15, b"\x01", "big-endian"),
        (headers.parse_libxl_header, LIBXL, 15, b"\x02", "legacy"),
        (headers.parse_libxl_header, LIBXL, 15, b"\x04", "unknown options; expected none, found 0x4"),
        (headers.parse_image_header, IMAGE, 0, b"\0", "legacy"),
        (headers.parse_image_header, IMAGE, 8, b"Y", "bad magic"),
        (headers.parse_image_header, IMAGE, 15, b"\x01", "version of the libxc stream; expected 2 or 3, found 1"),
        (headers.parse_image_header, IMAGE, 15, b"\x04", "expected 2 or 3, found 4"),
        (headers.parse_image_header, IMAGE, 17, b"\x01", "big-endian"),
        (headers.parse_image_header, IMAGE, 23, b"\x01", "reserved"),
        (
            headers.parse_domain_header,
            DOMAIN,
            0,
            b"\x03",
            r"guest type in the libxc domain header; expected 1 \(PV\) or 2 \(HVM\), found 3",
        ),
        (headers.parse_domain_header, DOMAIN, 4, b"\x0d", r"2\^13"),
        (headers.parse_domain_header, DOMAIN, 6, b"\x01", "reserved"),
    ],
)
def test_inner_headers_that_are_refused(
    parse: Callable[[bytes, int], object], raw: bytes, at: int, to: bytes, message: str
) -> None:
    with pytest.raises(StreamError, match=message) as caught:
        parse(raw[:at] + to + raw[at + len(to) :], 100)
    assert 100 <= caught.value.offset <= 100 + at
