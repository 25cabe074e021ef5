"""The headers of a saved domain: xl's (with the configuration), libxl's, libxc's image and domain header.

Each has a `pack_…` and a `parse_…`; a parser takes exactly the bytes of its structure and the offset at
which they stand in the stream, for messages. Sources in Xen: tools/xl/xl_saverestore.c
(save_domain_core_writeconfig), docs/specs/libxl-migration-stream.pandoc and libxc-migration-stream.pandoc.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream.framing import refused

XL_FIXED: Final = struct.Struct("<32sIIII")
LIBXL_HEADER: Final = struct.Struct(">QII")
IMAGE_HEADER: Final = struct.Struct(">QIIHHI")
DOMAIN_HEADER: Final = struct.Struct("<IHHII")
_U32: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class XlHeader:
    """xl's file header. config: the domain's configuration without its NUL (JSON, or xl.cfg text unless
    `json`). optional_flags: unknown ones are to be ignored. trailing: optional data behind the
    configuration."""

    config: bytes
    json: bool = True
    optional_flags: int = 0
    trailing: bytes = b""


@dataclass(frozen=True, slots=True)
class LibxlHeader:
    """Header of the libxl stream."""

    version: int
    options: int


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Header of the libxc stream. version: 2 (Xen 4.6 to 4.13) or 3 (Xen 4.14 and later)."""

    version: int


@dataclass(frozen=True, slots=True)
class DomainHeader:
    """Kind of guest, and the version of the Xen that wrote the stream."""

    type: c.DomainType
    xen: tuple[int, int]


def pack_xl_header(config: bytes, *, trailing: bytes = b"", optional_flags: int = 0, json: bool = True) -> bytes:
    """xl's header with a configuration (without NUL; it is added here). Raises StreamError if it is too
    long or holds a NUL."""
    length = len(config) + 1
    if length > c.CONFIG_LENGTH_MAX:
        raise StreamError(
            f"the configuration of {length} bytes is longer than the limit of {c.CONFIG_LENGTH_MAX}",
            offset=0,
            operation=c.WRITE,
        )
    if b"\0" in config:
        raise StreamError("the configuration contains a NUL byte", offset=config.index(b"\0"), operation=c.WRITE)
    mandatory = c.XL_FLAGS_KNOWN if json else c.XL_FLAG_STREAM_V2
    fixed = XL_FIXED.pack(c.XL_MAGIC, c.XL_BYTE_ORDER, mandatory, optional_flags, _U32.size + length + len(trailing))
    return fixed + _U32.pack(length) + config + b"\0" + trailing


def parse_xl_fixed(raw: c.Buffer) -> tuple[int, bool, int]:
    """The first 48 bytes: (length of the optional data, configuration is JSON, optional flags).

    The length is 0 where there is no configuration at all, which only a header without the flag of JSON may say.
    Raises StreamError for other formats (named where known), a foreign byte order, legacy images and unknown
    mandatory flags."""
    magic, order, mandatory, optional, length = XL_FIXED.unpack(raw)
    if magic != c.XL_MAGIC:
        raise refused(_foreign(magic), 0, expected="the magic of xl", found=repr(magic))
    if order != c.XL_BYTE_ORDER:
        endian = "is big-endian" if order == c.XL_BYTE_ORDER_BIG_ENDIAN else "has an unknown byte order"
        raise refused(f"the xl header {endian}", 32, expected=f"{c.XL_BYTE_ORDER:#010x}", found=f"{order:#010x}")
    if mandatory & ~c.XL_FLAGS_KNOWN:
        raise refused(
            "the xl header has unknown mandatory flags",
            36,
            expected=f"none but {c.XL_FLAGS_KNOWN:#x}",
            found=f"{mandatory & ~c.XL_FLAGS_KNOWN:#x}",
        )
    if not mandatory & c.XL_FLAG_STREAM_V2:
        raise refused(
            "this is a legacy image: its xl header lacks the flag of stream version 2 (Xen before 4.6)",
            36,
            expected=f"flag {c.XL_FLAG_STREAM_V2:#x}",
            found=f"{mandatory:#x}",
            hint="save the domain with Xen 4.6 or later",
        )
    json = bool(mandatory & c.XL_FLAG_JSON)
    least, most = _U32.size + 1 if json else 0, _U32.size + c.CONFIG_LENGTH_MAX
    if not least <= length <= most or 0 < length < _U32.size:
        raise refused(
            "wrong length of the configuration in the xl header",
            44,
            expected=f"{least} to {most} bytes",
            found=f"{length}",
        )
    return length, json, optional


def parse_xl_optional(raw: c.Buffer, *, json: bool, optional_flags: int) -> XlHeader:
    """xl's header from its optional data: u32 length, configuration, anything else. JSON ends with a NUL; the text of
    an xl.cfg may. Raises StreamError."""
    data = bytes(raw)
    start = XL_FIXED.size + _U32.size
    (length,) = _U32.unpack_from(data)
    if not int(json) <= length <= len(data) - _U32.size:
        raise refused(
            "the configuration's length does not fit what follows",
            start - 4,
            expected=f"{int(json)} to {len(data) - _U32.size}",
            found=f"{length}",
        )
    config = data[_U32.size : _U32.size + length]
    nul = config.find(b"\0")
    if nul not in (length - 1, *(() if json else (-1,))):
        raise refused(
            "the configuration is not ended by its only NUL byte",
            start,
            expected=f"a NUL at its byte {length - 1}",
            found=f"one at byte {nul}" if nul >= 0 else "none",
        )
    return XlHeader(config.removesuffix(b"\0"), json, optional_flags, data[_U32.size + length :])


def pack_libxl_header() -> bytes:
    """Header of a little-endian libxl stream, version 2."""
    return LIBXL_HEADER.pack(c.LIBXL_IDENT, c.LIBXL_VERSION, 0)


def parse_libxl_header(raw: c.Buffer, offset: int) -> LibxlHeader:
    """Raises StreamError for a bad magic, another version, big-endian and converted legacy streams."""
    ident, version, options = LIBXL_HEADER.unpack(raw)
    if ident != c.LIBXL_IDENT:
        raise refused(
            "bad magic in the libxl header", offset, expected=f"{c.LIBXL_IDENT:#018x}", found=f"{ident:#018x}"
        )
    if version != c.LIBXL_VERSION:
        raise refused(
            "unknown version of the libxl stream", offset + 8, expected=f"{c.LIBXL_VERSION}", found=f"{version}"
        )
    if options & c.LIBXL_OPTION_BIG_ENDIAN:
        raise refused(
            "the libxl stream is big-endian", offset + 12, expected="little-endian", found=f"options {options:#x}"
        )
    if options & c.LIBXL_OPTION_LEGACY:
        raise refused(
            "this is a converted legacy image (Xen before 4.6)",
            offset + 12,
            expected="a stream of Xen 4.6 or later",
            found=f"options {options:#x}",
        )
    if options:
        raise refused("the libxl header has unknown options", offset + 12, expected="none", found=f"{options:#x}")
    return LibxlHeader(version, options)


def pack_image_header(version: int = c.LIBXC_VERSION) -> bytes:
    """Image header of a little-endian libxc stream."""
    return IMAGE_HEADER.pack(c.LIBXC_MARKER, c.LIBXC_IDENT, version, 0, 0, 0)


def parse_image_header(raw: c.Buffer, offset: int) -> ImageHeader:
    """Raises StreamError for legacy images (no marker), a bad magic, unknown versions, big-endian streams."""
    marker, ident, version, options, reserved1, reserved2 = IMAGE_HEADER.unpack(raw)
    if marker != c.LIBXC_MARKER:
        raise refused(
            f"no libxc image marker: {_legacy(marker)}",
            offset,
            expected=f"{c.LIBXC_MARKER:#x}",
            found=f"{marker:#018x}",
        )
    if ident != c.LIBXC_IDENT:
        raise refused(
            "bad magic in the libxc image header", offset + 8, expected=f"{c.LIBXC_IDENT:#010x}", found=f"{ident:#010x}"
        )
    if version not in c.LIBXC_VERSIONS:
        raise refused(
            "unknown version of the libxc stream",
            offset + 12,
            expected=" or ".join(map(str, c.LIBXC_VERSIONS)),
            found=f"{version}",
        )
    if options & c.LIBXC_OPTION_BIG_ENDIAN:
        raise refused(
            "the libxc stream is big-endian", offset + 16, expected="little-endian", found=f"options {options:#x}"
        )
    if options or reserved1 or reserved2:
        raise refused(
            "reserved bits are set in the libxc image header",
            offset + 16,
            expected="zeros",
            found=f"{options:#x}, {reserved1:#x}, {reserved2:#x}",
        )
    return ImageHeader(version)


def pack_domain_header(xen: tuple[int, int], domain_type: c.DomainType = c.DomainType.HVM) -> bytes:
    """Domain header. xen: (major, minor) of the writing host's Xen."""
    return DOMAIN_HEADER.pack(domain_type, c.PAGE_SHIFT, 0, *xen)


def parse_domain_header(raw: c.Buffer, offset: int) -> DomainHeader:
    """Raises StreamError for unknown guest types and other page sizes."""
    kind, page_shift, reserved, major, minor = DOMAIN_HEADER.unpack(raw)
    if kind not in tuple(c.DomainType):
        raise refused(
            "unknown guest type in the libxc domain header", offset, expected="1 (PV) or 2 (HVM)", found=f"{kind}"
        )
    if page_shift != c.PAGE_SHIFT:
        raise refused(
            "unknown page size of the libxc stream",
            offset + 4,
            expected=f"2^{c.PAGE_SHIFT} bytes",
            found=f"2^{page_shift}",
        )
    if reserved:
        raise refused(
            "reserved bits are set in the libxc domain header", offset + 6, expected="0", found=f"{reserved:#x}"
        )
    return DomainHeader(c.DomainType(kind), (major, minor))


def _foreign(magic: bytes) -> str:
    for start, name in c.FOREIGN_MAGICS.items():
        if magic.startswith(start):
            return f"this is {name}, not of xl"
    if magic.startswith(c.LIBXL_IDENT.to_bytes(8, "big")):
        return "bad magic: a libxl stream without its xl header"
    if magic.startswith(c.LIBXC_MARKER.to_bytes(8, "big")):
        return "bad magic: a libxc stream without its xl and libxl headers"
    return "bad magic: this is not a domain saved by xl"


def _legacy(marker: int) -> str:
    """What the first 8 bytes of a libxc stream without a marker are (Legacy Images in the specification)."""
    first, second = (marker >> 32).to_bytes(4, "big"), marker & 0xFFFFFFFF
    if not second and any(first):
        return "a legacy image of a 64-bit toolstack (Xen before 4.6)"
    if second == 0xFFFFFFFF:
        return "a legacy image of a 32-bit toolstack (Xen before 4.6)"
    return "a legacy image, or not a libxc stream"
