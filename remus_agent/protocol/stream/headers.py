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


def pack_xl_header(config: bytes, *, trailing: bytes = b"", optional_flags: int = 0) -> bytes:
    """xl's header with a JSON configuration (without NUL; it is added here). Raises StreamError if it is too
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
    fixed = XL_FIXED.pack(
        c.XL_MAGIC, c.XL_BYTE_ORDER, c.XL_FLAGS_KNOWN, optional_flags, _U32.size + length + len(trailing)
    )
    return fixed + _U32.pack(length) + config + b"\0" + trailing


def parse_xl_fixed(raw: c.Buffer) -> tuple[int, bool, int]:
    """The first 48 bytes: (length of the optional data, configuration is JSON, optional flags).

    Raises StreamError for other formats (named where known), a foreign byte order, legacy images and unknown
    mandatory flags."""
    magic, order, mandatory, optional, length = XL_FIXED.unpack(raw)
    if magic != c.XL_MAGIC:
        raise _refused(_foreign(magic), 0)
    if order != c.XL_BYTE_ORDER:
        raise _refused(f"the xl header was written with another byte order ({order:#010x})", 32)
    if mandatory & ~c.XL_FLAGS_KNOWN:
        raise _refused(f"the xl header has unknown mandatory flags {mandatory & ~c.XL_FLAGS_KNOWN:#x}", 36)
    if not mandatory & c.XL_FLAG_STREAM_V2:
        raise _refused(
            "this is a legacy image: its xl header lacks the flag of stream version 2 (Xen before 4.6)",
            36,
            hint="save the domain with Xen 4.6 or later",
        )
    if not _U32.size < length <= _U32.size + c.CONFIG_LENGTH_MAX:
        raise _refused(
            f"the xl header announces {length} bytes of configuration; allowed are 5 to "
            f"{_U32.size + c.CONFIG_LENGTH_MAX}",
            44,
        )
    return length, bool(mandatory & c.XL_FLAG_JSON), optional


def parse_xl_optional(raw: c.Buffer, *, json: bool, optional_flags: int) -> XlHeader:
    """xl's header from its optional data: u32 length, configuration with a NUL, anything else."""
    data = bytes(raw)
    start = XL_FIXED.size + _U32.size
    (length,) = _U32.unpack_from(data)
    if not 1 <= length <= len(data) - _U32.size:
        raise _refused(
            f"the configuration's length {length} does not fit the {len(data) - _U32.size} bytes that follow",
            start - 4,
        )
    config = data[_U32.size : _U32.size + length]
    if config.find(b"\0") != length - 1:
        raise _refused("the configuration is not ended by its only NUL byte", start)
    return XlHeader(config[:-1], json, optional_flags, data[_U32.size + length :])


def pack_libxl_header() -> bytes:
    """Header of a little-endian libxl stream, version 2."""
    return LIBXL_HEADER.pack(c.LIBXL_IDENT, c.LIBXL_VERSION, 0)


def parse_libxl_header(raw: c.Buffer, offset: int) -> LibxlHeader:
    """Raises StreamError for a bad magic, another version, big-endian and converted legacy streams."""
    ident, version, options = LIBXL_HEADER.unpack(raw)
    if ident != c.LIBXL_IDENT:
        raise _refused(f"bad magic in the libxl header: {ident:#018x}", offset)
    if version != c.LIBXL_VERSION:
        raise _refused(f"the libxl stream has version {version}; known is {c.LIBXL_VERSION}", offset + 8)
    if options & c.LIBXL_OPTION_BIG_ENDIAN:
        raise _refused("the libxl stream is big-endian", offset + 12)
    if options & c.LIBXL_OPTION_LEGACY:
        raise _refused("this is a converted legacy image (Xen before 4.6)", offset + 12)
    if options:
        raise _refused(f"the libxl header has unknown options {options:#x}", offset + 12)
    return LibxlHeader(version, options)


def pack_image_header(version: int = c.LIBXC_VERSION) -> bytes:
    """Image header of a little-endian libxc stream."""
    return IMAGE_HEADER.pack(c.LIBXC_MARKER, c.LIBXC_IDENT, version, 0, 0, 0)


def parse_image_header(raw: c.Buffer, offset: int) -> ImageHeader:
    """Raises StreamError for legacy images (no marker), a bad magic, unknown versions, big-endian streams."""
    marker, ident, version, options, reserved1, reserved2 = IMAGE_HEADER.unpack(raw)
    if marker != c.LIBXC_MARKER:
        raise _refused(f"no libxc image marker ({marker:#018x}): a legacy image, or not a libxc stream", offset)
    if ident != c.LIBXC_IDENT:
        raise _refused(f"bad magic in the libxc image header: {ident:#010x}", offset + 8)
    if version not in c.LIBXC_VERSIONS:
        raise _refused(
            f"the libxc stream has version {version}; known are {', '.join(map(str, c.LIBXC_VERSIONS))}",
            offset + 12,
        )
    if options & c.LIBXC_OPTION_BIG_ENDIAN:
        raise _refused("the libxc stream is big-endian", offset + 16)
    if options or reserved1 or reserved2:
        raise _refused("reserved bits are set in the libxc image header", offset + 16)
    return ImageHeader(version)


def pack_domain_header(xen: tuple[int, int], domain_type: c.DomainType = c.DomainType.HVM) -> bytes:
    """Domain header. xen: (major, minor) of the writing host's Xen."""
    return DOMAIN_HEADER.pack(domain_type, c.PAGE_SHIFT, 0, *xen)


def parse_domain_header(raw: c.Buffer, offset: int) -> DomainHeader:
    """Raises StreamError for unknown guest types and other page sizes."""
    kind, page_shift, reserved, major, minor = DOMAIN_HEADER.unpack(raw)
    if kind not in tuple(c.DomainType):
        raise _refused(f"unknown guest type {kind} in the libxc domain header", offset)
    if page_shift != c.PAGE_SHIFT:
        raise _refused(f"the libxc stream has pages of 2^{page_shift} bytes; known are 2^{c.PAGE_SHIFT}", offset + 4)
    if reserved:
        raise _refused("reserved bits are set in the libxc domain header", offset + 6)
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


def _refused(message: str, offset: int, hint: str | None = None) -> StreamError:
    return StreamError(message, offset=offset, operation=c.READ, hint=hint)
