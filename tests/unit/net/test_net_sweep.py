"""Sweeping after an agent that was killed and whose guest was destroyed: what is removed is certainly ours, and nobody's."""

from __future__ import annotations

import asyncio
import struct

import pytest

from remus_agent.adapters.net import plumbing
from remus_agent.adapters.net.output_buffers import PlugOutputBuffers
from remus_agent.adapters.net.plumbing import owner_of
from remus_agent.errors import OutputBufferError
from remus_agent.ports import Vif
from remus_agent.protocol import rtnl

INDEX = struct.Struct("=4xi")
HEADER = 16


class Kernel:
    """Links of a host behind `Netlink`'s interface. Nothing else can be asked for, so a release would fail the test."""

    def __init__(self, *links: tuple[str, str]) -> None:
        self.links = dict(enumerate(links, 20))
        self.refuses: str | None = None

    def names(self) -> list[str]:
        return [name for name, _ in self.links.values()]

    def ask(self, request: bytearray, kind: int, operation: str, device: str) -> list[memoryview]:
        assert (bytes(request), kind) == (bytes(rtnl.links_dump()), rtnl.RTM_NEWLINK)
        return [_body(index, name, kind) for index, (name, kind) in reversed(self.links.items())]

    def do(self, request: bytearray, operation: str, device: str) -> None:
        (index,) = INDEX.unpack_from(request, HEADER)
        assert bytes(request) == bytes(rtnl.link_delete(index))
        if self.links[index][0] == self.refuses:
            raise OutputBufferError(f"{device}: no", operation=operation)
        del self.links[index]

    def close(self) -> None:
        pass


def _body(index: int, name: str, kind: str) -> memoryview:
    assert len(kind) == len("ifb")
    body = memoryview(rtnl.ifb_add(name).replace(b"ifb\0", kind.encode() + b"\0"))[HEADER:]
    INDEX.pack_into(body, 0, index)
    return body


def swept(monkeypatch: pytest.MonkeyPatch, kernel: Kernel, *domids: int) -> list[str]:
    monkeypatch.setattr(plumbing, "Netlink", lambda: kernel)
    return asyncio.run(PlugOutputBuffers().sweep(frozenset(domids)))


def test_links_of_domains_that_are_gone_are_removed_and_those_of_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(("lo", "tun"), ("rb3.0.0", "ifb"), ("rb4.0.0", "ifb"), ("rb3.1.17", "ifb"), ("rb34.0.0", "ifb"))
    assert swept(monkeypatch, kernel, 0, 4, 34) == ["rb3.0.0", "rb3.1.17"]
    assert kernel.names() == ["lo", "rb4.0.0", "rb34.0.0"]
    assert swept(monkeypatch, kernel, 0, 4, 34) == []


def test_only_what_is_certainly_ours_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(
        ("rb3.0.0", "tun"), ("rb3.0", "ifb"), ("rb3.0.0x", "ifb"), ("rb03.0.0", "ifb"), ("rb3.0.1000", "ifb"),
        ("ifb0", "ifb"), ("vif3.0", "ifb"), ("xrb3.0.0", "ifb"), ("rb-3.0.0", "ifb"), ("rb3.0.0 ", "ifb"),
    )  # fmt: skip
    before = kernel.names()
    assert swept(monkeypatch, kernel, 0) == []
    assert kernel.names() == before


def test_a_kernel_that_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(("rb3.0.0", "ifb"))
    kernel.refuses = "rb3.0.0"
    with pytest.raises(OutputBufferError, match=r"rb3\.0\.0"):
        swept(monkeypatch, kernel, 0)


def test_an_owner_is_read_from_every_name_that_is_given() -> None:
    vifs = [Vif(devid, "vif", "", "", emulated) for devid in (0, 12) for emulated in (False, True)]
    names = [plumbing._next_name(domid, vif, []) for domid in (1, 32751) for vif in vifs]
    ports = ["0", "0e", "12", "12e"]
    assert [owner_of(name) for name in names] == [(domid, port) for domid in (1, 32751) for port in ports]
