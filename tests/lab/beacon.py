"""Asks a guest's beacon for frames and reports those that leave its host. Runs alone inside the lab's
namespace.

    python3 beacon.py TAP BRIDGE GUEST_MAC GUEST_IP

TAP is the port behind which the guest's host is: what arrives there has left the host. Standard input takes
"send N" (one round with the sequence number N) and "rounds N" (N rounds by itself, 100 ms apart). Standard
output gives one JSON object a frame: {"time": seconds (monotonic), "kind": "arp", "sequence": 7}; for other
frames of the guest the kind is "ethertype-0x8035" and the frame is there in hex.

The request is a frame of its own making: it does not ask for the guest's address, because a guest whose
output is held cannot answer."""

from __future__ import annotations

import json
import re
import select
import socket
import struct
import sys
import time

KINDS = ("ipv4", "ipv6", "arp", "vlan", "other")
ETH_P_ALL = 3
PACKET_OUTGOING = 4
TEXT = re.compile(rb"REMUS-BEACON kind=(\w+) seq=(\d+);")


def request(guest_mac: bytes, own_mac: bytes, address: str, text: bytes) -> bytes:
    """An Ethernet frame with a UDP datagram for the beacon."""
    udp = struct.pack("!HHHH", 7779, 7777, 8 + len(text), 0) + text
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    head += socket.inet_aton("10.77.0.1") + socket.inet_aton(address)
    total = sum(struct.unpack("!10H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:]
    return guest_mac + own_mac + b"\x08\x00" + head + udp


def describe(frame: bytes) -> dict[str, object]:
    """A frame as it is reported."""
    found = TEXT.search(frame)
    now = time.monotonic()
    if found is not None:
        return {"time": now, "kind": found[1].decode(), "sequence": int(found[2])}
    ethertype = struct.unpack_from("!H", frame, 12)[0]
    return {"time": now, "kind": f"ethertype-{ethertype:#06x}", "sequence": None, "frame": frame.hex()}


def main(tap: str, bridge: str, guest_mac_text: str, address: str) -> None:
    guest_mac = bytes.fromhex(guest_mac_text.replace(":", ""))
    capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    capture.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
    capture.bind((tap, ETH_P_ALL))
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sender.bind((bridge, 0))
    own_mac = sender.getsockname()[4]
    print(json.dumps({"kind": "ready"}), flush=True)
    while True:
        readable, _, _ = select.select([capture, sys.stdin], [], [])
        if capture in readable:
            frame, (_, _, direction, _, _) = capture.recvfrom(65536)
            if direction != PACKET_OUTGOING and frame[6:12] == guest_mac:
                print(json.dumps(describe(frame)), flush=True)
        if sys.stdin in readable:
            line = sys.stdin.readline()
            if not line:
                return
            command, number = line.split()
            text = number if command == "send" else f"start {number}"
            sender.send(request(guest_mac, own_mac, address, text.encode()))


if __name__ == "__main__":
    main(*sys.argv[1:5])
