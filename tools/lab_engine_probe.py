"""Takes checkpoints of a real guest on one lab host and applies them on the other, without the agent around
them.

On the backup:   lab_engine_probe.py serve 10.78.0.12:7900
On the primary:  lab_engine_probe.py run probe1 10.78.0.12:7900 --epochs 50 --interval 0.02

`run` seeds, takes the checkpoints, has each one applied and acknowledged, then destroys the guest here
without resuming it once more and has the copy activated. Both print one JSON object a line with what they
measured."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import struct
import sys
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from remus_agent.adapters.xen.hypervisor import XenHypervisor
from remus_agent.adapters.xen.target import XenTarget
from remus_agent.ports import Buffer
from remus_agent.protocol.stream.epoch import EpochParser

_HEAD: Final = struct.Struct("<4sI")
_TIMINGS: Final = ("freeze", "barrier", "clean", "copy", "context", "resume", "down")


def say(**facts: object) -> None:
    """One line for whoever measures."""
    print(json.dumps(facts), flush=True)


async def write(stream: asyncio.StreamWriter, kind: bytes, buffers: Iterable[Buffer] = ()) -> None:
    """One message; the buffers are copied out before this returns."""
    body = b"".join(buffers)
    stream.write(_HEAD.pack(kind, len(body)))
    stream.write(body)
    await stream.drain()


async def read(stream: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind, length = _HEAD.unpack(await stream.readexactly(_HEAD.size))
    return kind, await stream.readexactly(length)


async def serve(address: str, supervisor: Path) -> None:
    """Take in one guest, then end."""
    hypervisor = XenHypervisor(supervisor)
    done = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target: XenTarget | None = None
        tail: list[Buffer] = []
        try:
            while True:
                kind, body = await read(reader)
                started = time.monotonic()
                if kind == b"PREA":
                    target = await hypervisor.open_target(body, "probe--incoming")
                    continue
                if target is None:
                    raise ValueError("no preamble")
                if kind == b"SEED":
                    await target.feed([body])
                elif kind == b"EPOC":
                    parser = EpochParser(1 << 36)
                    parser.feed(body)
                    staged = parser.finish()
                    tail = list(staged.tail)
                    await target.feed(staged.page_records)
                    await write(writer, b"ACK_")
                elif kind == b"ACTI":
                    await target.build(tail, [])
                    await target.rename(body.decode())
                    domain = await target.run()
                    say(activated=domain.name, seconds=round(time.monotonic() - started, 3))
                    await write(writer, b"ACK_")
                    target = None
                    return
        except asyncio.IncompleteReadError:
            say(lost=True)
        finally:
            if target is not None:
                await target.abort()
            writer.close()
            done.set()

    host, _, port = address.rpartition(":")
    async with await asyncio.start_server(take, host, int(port), limit=1 << 20):
        say(facts=str(await hypervisor.facts()))
        await done.wait()
    await hypervisor.close()


async def run(name: str, address: str, supervisor: Path, epochs: int, interval: float, *, activate: bool) -> None:
    """Protect, then hand over."""
    hypervisor = XenHypervisor(supervisor)
    domain = await hypervisor.domain(name)
    say(domain=str(domain), facts=str(await hypervisor.facts()))
    source = await hypervisor.open_source(domain)
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    taken: list[dict[str, float]] = []
    try:
        # Another UUID (of the same length), so that both may stand on one host.
        await write(writer, b"PREA", [source.preamble.replace(domain.uuid.encode(), str(uuid.uuid4()).encode())])
        started = time.monotonic()
        await source.begin()
        begun = time.monotonic()
        pages = sent = 0
        async for piece in source.seed():
            pages += piece.pages
            sent += sum(len(buffer) for buffer in piece.records)
            await write(writer, b"SEED", piece.records)
        seeded = time.monotonic()
        say(begin=round(begun - started, 3), seed=round(seeded - begun, 3), seed_pages=pages, seed_bytes=sent)
        for epoch in range(1, epochs + 1):
            asked = time.monotonic()
            checkpoint = await source.checkpoint(epoch, lambda: None, 10.0)
            await write(writer, b"EPOC", [buffer for group in checkpoint.records for buffer in group])
            await read(reader)
            one = {key: getattr(checkpoint.timing, key) / 1e6 for key in _TIMINGS}
            taken.append({**one, "pages": checkpoint.pages, "period": (time.monotonic() - asked + interval) * 1e3})
            await asyncio.sleep(interval)
        say(epochs=len(taken), **{key: spread([one[key] for one in taken]) for key in (*_TIMINGS, "pages", "period")})
        if activate:
            await source.close()
            await hypervisor.destroy(name)
            started = time.monotonic()
            await write(writer, b"ACTI", [name.encode()])
            await read(reader)
            say(activation=round(time.monotonic() - started, 3))
    finally:
        await source.close()
        writer.close()
        await hypervisor.close()


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}..{max(values):.2f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--supervisor", type=Path, default=Path("/run/remus/supervisor.sock"))
    commands = parser.add_subparsers(dest="command", required=True)
    backup = commands.add_parser("serve")
    backup.add_argument("address")
    primary = commands.add_parser("run")
    primary.add_argument("domain")
    primary.add_argument("address")
    primary.add_argument("--epochs", type=int, default=50)
    primary.add_argument("--interval", type=float, default=0.02)
    primary.add_argument("--keep", action="store_true", help="do not hand over")
    options = parser.parse_args()
    if options.command == "serve":
        asyncio.run(serve(options.address, options.supervisor))
    else:
        asyncio.run(
            run(
                options.domain,
                options.address,
                options.supervisor,
                options.epochs,
                options.interval,
                activate=not options.keep,
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
