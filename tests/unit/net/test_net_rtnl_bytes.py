"""Bytes of the messages that lay the plumbing; the expected ones were accepted by Linux 6.12."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys

import pytest

from remus_agent.errors import ProtocolError
from remus_agent.protocol import rtnl
from remus_agent.protocol.rtnl import Filter, QdiscStats

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the expected bytes are little-endian")


def test_a_redirect_of_all_protocols() -> None:
    message = bytes(rtnl.stamped(rtnl.redirect_add(9, 10, rtnl.ETH_P_ALL, 12), 7))
    expected = (
        "70000000" "2c00" "0506" "07000000" "00000000"
        "00000000" "09000000" "00000000" "f2ffffff" "00030a00"
        "0d00" "0100" "6d61746368616c6c00000000"
        "3c00" "0200" "3800" "0200" "3400" "0100"
        "0b00" "0100" "6d697272656400" "00"
        "2400" "0200" "2000" "0200"
    )  # fmt: skip
    parms = struct.pack("=IIiiiiI", 0, 0, 4, 0, 0, 1, 12)
    assert message.hex() == expected + parms.hex()
    assert rtnl.parse_filter(memoryview(message)[16:]) is not None


@pytest.mark.parametrize("protocol", [rtnl.ETH_P_ALL, rtnl.ETH_P_IP])
def test_a_filter_reads_as_it_was_written(protocol: int) -> None:
    message = rtnl.redirect_add(9, 65535, protocol, 12)
    struct.pack_into("=I", message, 16 + 8, 1)
    assert rtnl.parse_filter(memoryview(message)[16:]) == Filter(65535, protocol, "matchall", 12)


def test_an_ifb_by_name() -> None:
    message = bytes(rtnl.ifb_add("rb7.0.0"))
    assert message[:16].hex() == f"{len(message):02x}000000100005060000000000000000"
    link = rtnl.parse_link(memoryview(message)[16:])
    assert (link.name, link.kind, link.up) == ("rb7.0.0", "ifb", False)
    for wrong in ("", "x" * 16):
        with pytest.raises(ProtocolError):
            rtnl.ifb_add(wrong)


def test_a_mac_is_taught_to_the_bridge_not_to_the_port() -> None:
    message = bytes(rtnl.fdb_learn(9, bytes.fromhex("00163e770064")))
    expected = "280000001c0005050000000000000000070000000900000002000400"
    assert message.hex() == expected + "0a00020000163e7700640000"


def test_statistics_of_a_qdisc() -> None:
    queue = struct.pack("=HHIIIII", 24, 3, 5, 7000, 2, 0, 0)
    kind = struct.pack("=HH", 9, 1) + b"plug\0\0\0\0"
    body = bytes(20) + kind + struct.pack("=HH", 4 + len(queue), 7) + queue
    assert rtnl.parse_qdisc(memoryview(body)) == QdiscStats("plug", 7000, 5, 2)
    with pytest.raises(ProtocolError):
        rtnl.parse_qdisc(memoryview(bytes(20) + kind))
    with pytest.raises(ProtocolError):
        rtnl.parse_qdisc(memoryview(body[:-1]))


@pytest.mark.parametrize("priority", [0, 65536])
def test_a_priority_has_16_bits(priority: int) -> None:
    with pytest.raises(ProtocolError):
        rtnl.filter_delete(9, priority, rtnl.ETH_P_ALL)


IN_A_NAMESPACE = """
import asyncio, subprocess
from remus_agent.adapters.net.output_buffer import PlugOutputBuffer
from remus_agent.errors import OutputBufferError
from remus_agent.ports import Domain, GuestType, Vif
subprocess.run(["ip", "link", "add", "vif7.0", "type", "ifb"], check=False)
subprocess.run(["ip", "link", "show", "vif7.0"], check=True)
before = subprocess.check_output(["ip", "-o", "link"])
domain = Domain("g", 7, "", GuestType.PVH, 0, (Vif(0, "vif7.0", "00:16:3e:00:00:01", "br"),))
try:
    asyncio.run(PlugOutputBuffer(domain, 1 << 20).install(closed=True))
    print("INSTALLED")
except OutputBufferError as error:
    print(error.as_dict())
    assert subprocess.check_output(["ip", "-o", "link"]) == before
"""


def test_a_kernel_without_a_module_is_told_by_the_modules_name() -> None:
    """On a kernel that lacks one of them; in a network namespace of its own."""
    unshare = shutil.which("unshare")
    command = [unshare or "unshare", "-n", sys.executable, "-c", IN_A_NAMESPACE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if unshare is None or "unshare" in done.stderr or "vif7.0" in done.stderr:
        pytest.skip(f"no namespace with an interface can be made here: {done.stderr.strip()}")
    if "INSTALLED" in done.stdout:
        pytest.skip("this kernel has all the modules")
    assert done.returncode == 0, done.stderr
    assert "has no module" in done.stdout
    assert "modprobe" in done.stdout
