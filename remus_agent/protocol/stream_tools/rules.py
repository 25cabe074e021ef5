"""Rules that need more than one record, or the configuration: what only the guest's own receiver would refuse.

`StreamReader` checks everything else. Sources in Xen: tools/libs/light/libxl_stream_read.c (process_record),
tools/xl/xl_vmcontrol.c (create_domain), xen/common/hvm/save.c.
"""

from __future__ import annotations

import json
from typing import Any, Final

from remus_agent.errors import StreamError
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream import headers, hvm_context
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.constants import LibxlRecordType as Xl
from remus_agent.protocol.stream.records import Record, refused
from remus_agent.protocol.stream_tools.walk import Structure

_CONFIG_AT: Final = headers.XL_FIXED.size + 4
_KINDS: Final = {"pv": "PV", "pvh": "PVH", "hvm": "HVM"}


class Guest:
    """Who the guest of a stream is, as far as the structures seen so far say it.

    config: libxl's domain configuration, None when it is not JSON. Feed it every structure."""

    def __init__(self) -> None:
        self.config: dict[str, Any] | None = None
        self.xl: headers.XlHeader | None = None
        self.version: int | None = None
        self.domain: headers.DomainHeader | None = None

    @property
    def name(self) -> str | None:
        """The domain's name, None where the configuration does not say it."""
        name = self._info().get("name")
        return name if isinstance(name, str) else None

    @property
    def kind(self) -> str | None:
        """`PV`, `PVH`, `HVM`; `HVM or PVH` where the configuration does not say it; None before the headers."""
        if self.domain is None:
            return None
        if self.domain.type is c.DomainType.PV:
            return "PV"
        return self._configured() or "HVM or PVH"

    def take(self, structure: Structure) -> None:
        """Note what a structure says. Raises StreamError for a configuration that xl would refuse, and for a guest
        type in it that is not the stream's."""
        try:
            match structure.event:
                case headers.XlHeader() as header:
                    self.xl = header
                    self.config = parse_config(header)
                case headers.ImageHeader(version):
                    self.version = version
                case headers.DomainHeader() as header:
                    self.domain = header
                    self._agree(structure.offset)
        except StreamError as error:
            raise structure.blame(error) from None

    def check(self, structure: Structure) -> None:
        """The rules of this module. Raises StreamError."""
        record = structure.event
        try:
            if structure.is_libxc(Xc.HVM_CONTEXT) and isinstance(record, Record):
                hvm_context.walk(record.body, record.body_offset)
            elif structure.is_libxl(Xl.EMULATOR_CONTEXT, Xl.EMULATOR_XENSTORE_DATA) and self.kind in ("PV", "PVH"):
                raise refused(
                    "a device model's record, and the guest has none",
                    structure.offset,
                    expected=f"a record of a {self.kind} guest",
                    found=structure.name,
                )
        except StreamError as error:
            raise structure.blame(error) from None

    def _info(self) -> dict[str, Any]:
        info = (self.config or {}).get("c_info")
        return info if isinstance(info, dict) else {}

    def _configured(self) -> str | None:
        return _KINDS.get(str(self._info().get("type")))

    def _agree(self, offset: int) -> None:
        kind = self._configured()
        if self.domain is not None and kind is not None and (kind == "PV") != (self.domain.type is c.DomainType.PV):
            raise refused(
                "the libxc domain header and the configuration in the xl header disagree about the type of guest",
                offset,
                expected=kind,
                found=self.domain.type.name,
            )


def parse_config(xl: headers.XlHeader) -> dict[str, Any] | None:
    """The domain configuration; None when it is xl.cfg text, as xl wrote it before Xen 4.5. Raises
    StreamError."""
    if not xl.json:
        return None
    try:
        config = json.loads(xl.config.decode())
    except (ValueError, RecursionError) as error:
        raise refused("the configuration is not JSON", _CONFIG_AT, expected="JSON", found=str(error)) from error
    if not isinstance(config, dict):
        raise refused(
            "the configuration is not a JSON object", _CONFIG_AT, expected="an object", found=type(config).__name__
        )
    return config
