"""Holds the output buffer of one guest inside dom0, as the agent would, and does what it is told.

    python3 buffer_agent.py DOMAIN_JSON LIMIT

One JSON object a line on standard input ({"do": "install", "closed": true}), one on standard output: {"ok":
result} or {"error": facts}. Runs with the package's folder on PYTHONPATH."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from ipaddress import ip_address
from typing import Any

from remus_agent.adapters.net.announce import BridgeAnnouncer
from remus_agent.adapters.net.output_buffer import PlugOutputBuffer
from remus_agent.adapters.net.output_buffers import PlugOutputBuffers
from remus_agent.errors import RemusError
from remus_agent.ports import Domain, GuestType, Vif


def domain_of(facts: dict[str, Any]) -> Domain:
    vifs = tuple(Vif(**vif) for vif in facts.pop("vifs"))
    return Domain(**facts, uuid="", guest_type=GuestType.PVH, memory_kib=131072, vifs=vifs)


async def measure(buffer: PlugOutputBuffer, rounds: int) -> dict[str, list[int]]:
    """Nanoseconds of each barrier and release."""
    times: dict[str, list[int]] = {"barrier": [], "release": []}
    for _ in range(rounds):
        start = time.perf_counter_ns()
        buffer.barrier()
        middle = time.perf_counter_ns()
        await buffer.release()
        times["barrier"].append(middle - start)
        times["release"].append(time.perf_counter_ns() - middle)
    return times


async def answer(buffer: PlugOutputBuffer, domain: Domain, request: dict[str, Any]) -> Any:  # noqa: PLR0911
    match request.pop("do"):
        case "install":
            return await buffer.install(closed=request["closed"])
        case "barrier":
            return buffer.barrier()
        case "release":
            return await buffer.release()
        case "open":
            return await buffer.open()
        case "remove":
            return await buffer.remove()
        case "state":
            state = await buffer.state()
            return {
                "held_bytes": state.held_bytes,
                "held_packets": state.held_packets,
                "dropped_packets": state.dropped_packets,
            }
        case "measure":
            return await measure(buffer, request["rounds"])
        case "announce":
            known = {domain.vifs[0].mac: [ip_address(text) for text in request["addresses"]]}
            return await BridgeAnnouncer(known).announce(domain, told=lambda: None)
        case unknown:
            raise ValueError(unknown)


def main(domain_json: str, limit: str) -> None:
    domain = domain_of(json.loads(domain_json))
    buffer = PlugOutputBuffers().of(domain, int(limit))
    print(json.dumps({"ok": os.getpid()}), flush=True)
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            try:
                result = {"ok": runner.run(answer(buffer, domain, json.loads(line)))}
            except RemusError as error:
                result = {"error": error.as_dict()}
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
