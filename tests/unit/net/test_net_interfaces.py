"""Whether a guest's interface is gone: only the kernel's own word that there is no such device says so."""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Iterator

import pytest

from remus_agent.adapters.net.netlink import Netlink, NetlinkError
from remus_agent.adapters.net.plumbing import Plumbing
from remus_agent.ports import Vif


@pytest.fixture
def plumbing() -> Iterator[Plumbing]:
    plumbing = Plumbing()
    yield plumbing
    plumbing.close()


def vif(device: str) -> Vif:
    return Vif(0, device, "00:16:3e:00:00:01", "br0")


@pytest.mark.parametrize("device", ["vif3.0", "longer-than-any-name", "vif\udcff"])
def test_one_that_is_not_there_is_gone(plumbing: Plumbing, device: str) -> None:
    assert plumbing.vif_index(vif(device)) is None


def test_one_that_is_there_is_not_gone_when_the_agent_is_out_of_descriptors(plumbing: Plumbing) -> None:
    index = socket.if_nametoindex("lo")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        found = plumbing.vif_index(vif("lo"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == index


def test_one_that_cannot_be_asked_about_is_not_gone(plumbing: Plumbing, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Netlink, __: bytearray, ___: int, operation: str, device: str) -> None:
        raise NetlinkError(operation, device, errno.ENOBUFS)

    monkeypatch.setattr(Netlink, "ask", full)
    with pytest.raises(NetlinkError, match="ENOBUFS"):
        plumbing.vif_index(vif("lo"))
