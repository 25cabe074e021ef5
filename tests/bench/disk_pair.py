"""The devices that are compared, on the lab's pair, and fio on each of them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pair import agent, bundle, database, drbd
from pair.guest import come_home
from pair.hosts import GUEST, HOSTS, PROJECT, on, on_both, run
from pair.protection import SEED_TIMEOUT, require_agents, unprotected, wait_protected
from pair.second_guest import ADDRESS, NAME, OWN_DISK, second_guest
from pair.slow import removal, slow
from pair.volumes import Volume, volumes
from pair.wait import until

from bench import disk_figures as names
from bench.disk_cells import CELLS, READS, WRITES, Cell, figures, job_file, turn_figures, turns_file
from bench.figures import FiguresError

HERE = Path(__file__).parent
FIO = os.environ.get("REMUS_FIO") or "fio"
"""The program; one that needs few libraries is on the hosts sooner."""
FOLDER = "/var/lib/remus-bench-disks"
PYTHON = "/opt/remus/current/bin/python3"
IN_GUEST = "/second/fio"
TESTED = "xvdd"
"""The disk that the guest itself leaves alone."""
MIB = 64
VOLUMES = (Volume(NAME, "xvda", 512), Volume(NAME, "xvdb", 128), Volume(NAME, TESTED, MIB))
BOOT = f"(until [ -b /dev/{TESTED} ]; do sleep 0.1; done; chmod 666 /dev/{TESTED}) &\n"
"""PostgreSQL, which starts fio there, is not root."""
_FILES = {
    names.BARE: f"{FOLDER}/bare.img",
    names.DRBD: f"{FOLDER}/drbd.img",
}
READ_MS = 60
"""What a read takes on each device. A file of an emulated host is read in no time but the processor's, of which every layer of
the kernel takes some more; a disk takes time."""


@dataclass
class Pair:
    """Made by `prepared`. bare: the device that nothing else is on. interval_ms: how long the guest runs at least between two
    checkpoints; None: what its agent takes. turns: of `reads`, of each device and pattern, a second or two each: what the machine
    does beside it meets all devices. log: told what is being done."""

    bare: str
    seconds: float
    turns: int
    interval_ms: int | None
    log: Callable[[str], None]

    def measure(self, target: str, number: int, *, in_guest: Sequence[Cell] = CELLS) -> dict[str, Any]:
        """Raw figures of one target; of a device on a host only what it writes, for `reads` has the rest."""
        self.log(f"round {number}: {names.TITLES[target]}")
        before = agent.status(HOSTS[0], NAME)
        if target == names.TAP_HERE:
            cells = self._tap_here()
        elif target == names.TAP:
            cells = self._tap_alone()
        elif target in names.IN_GUEST:
            cells = self._in_guest(in_guest)
        else:
            job = job_file(self._device(target), WRITES, self.seconds, MIB)
            cells = figures(self._on_host(job, len(WRITES)), WRITES)
        raw: dict[str, Any] = {"round": number, "target": target, "cells": cells}
        if target in (names.PROTECTED, names.GUEST_PROTECTED):
            raw |= _since(before)
        return raw | ({"ran": _ran(*raw["epochs"])} if target == names.GUEST_PROTECTED else {})

    def reads(self, targets: Sequence[str], number: int) -> list[dict[str, Any]]:
        """Raw figures of what several devices read in turns."""
        self.log(
            f"round {number}: reads in {self.turns} turns: {', '.join(names.TITLES[target] for target in targets)}"
        )
        before = agent.status(HOSTS[0], NAME)
        job = turns_file({target: self._device(target) for target in targets}, self.turns, self.seconds / 2, MIB)
        said = self._on_host(job, len(READS) * self.turns * len(targets))
        held = _since(before) if names.PROTECTED in targets else {}
        return [
            {"round": number, "turn": turn, "target": target, "cells": cells} | held
            for (target, turn), cells in turn_figures(said, targets, self.turns).items()
        ]

    def protect(self) -> None:
        """The guest is protected to the other host."""
        self.log("protecting the guest")
        pacing = {} if self.interval_ms is None else {"interval_ms": self.interval_ms}
        agent.ask(HOSTS[0], "protect", timeout=SEED_TIMEOUT, domain=NAME, peer=HOSTS[1], wait=False, **pacing)
        wait_protected(guest=NAME)

    def unprotect(self) -> None:
        """It is not any more."""
        for host in HOSTS:
            if agent.status(host, NAME)["role"] != "none":
                agent.ask(host, "unprotect", timeout=300, domain=NAME, force=True)
        until("the guest is unprotected", lambda: agent.status(HOSTS[0], NAME), unprotected, timeout=120)

    def _device(self, target: str) -> str:
        if target in (names.BARE, names.BESIDE):
            return self.bare
        return drbd.DEVICE if target in (names.DRBD, names.DRBD_BESIDE) else VOLUMES[-1].mapper

    def _limit(self, runs: int = len(CELLS)) -> float:
        return 120 + runs * (self.seconds + 30)

    def _on_host(self, job: str, runs: int) -> str:
        fio = f"{bundle.command(FOLDER, FIO)} --output-format=json -"
        return on(HOSTS[0], fio, stdin=job, timeout=self._limit(runs))

    def _in_guest(self, cells: Sequence[Cell]) -> dict[str, dict[str, float]]:
        job = job_file(f"/dev/{TESTED}", cells, self.seconds, MIB).replace("\n", "\\n")
        fio = f"{bundle.command(IN_GUEST, FIO)} --output-format=json --output=/tmp/fio.json /tmp/fio.job"
        program = f'printf "{job}" >/tmp/fio.job; {fio} >/tmp/fio.said 2>&1'
        database.sql(f"COPY (SELECT 1) TO PROGRAM '{program}'", ADDRESS, timeout=self._limit())
        return figures(database.sql("SELECT pg_read_file('/tmp/fio.json')", ADDRESS), cells)

    def _tap_alone(self) -> dict[str, dict[str, float]]:
        """In dom0 as well, below the kernel's nbd client but without mirror, sender and backup."""
        socket = f"{FOLDER}/tap.sock"
        script = f"""
        cd {FOLDER} && cat >job && rm -f hold served && mkfifo -m 600 hold
        package=$(echo /opt/remus/current/lib/python3*/site-packages)
        PYTHONPATH=$package {PYTHON} tap_alone.py {socket} {MIB} <hold >served 2>tap.log &
        exec 9>hold
        for _ in $(seq 300); do grep -q ready served && break; sleep 0.1; done
        device=$(PYTHONPATH=$package {PYTHON} -c "import asyncio, pathlib
        from remus_agent.adapters.disk.nbd_device import connect
        print(asyncio.run(connect(pathlib.Path('{socket}'), 'alone', 512, 30)))")
        sed -i "s|^filename=.*|filename=$device|" job
        {bundle.command(FOLDER, FIO)} --output-format=json job; code=$?
        nbd-client -d "$device" >&2
        exec 9>&-; wait; rm -f hold
        grep -q '"overflowed": false' served || {{ cat served tap.log >&2; exit 1; }}
        exit $code
        """
        job = job_file("tap", WRITES, self.seconds, MIB)
        return figures(on(HOSTS[0], textwrap.dedent(script), stdin=job, timeout=self._limit()), WRITES)

    def _tap_here(self) -> dict[str, dict[str, float]]:
        """Over its socket, without any kernel, on this machine, which has a processor for each side."""
        with tempfile.TemporaryDirectory(prefix="remus-tap-") as folder:
            socket = f"{folder}/tap.sock"
            words = [sys.executable, str(HERE / "tap_alone.py"), socket, str(MIB)]
            environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
            pipe = subprocess.PIPE
            with subprocess.Popen(words, env=environment, text=True, stdin=pipe, stdout=pipe) as tap:
                assert tap.stdout is not None
                assert tap.stdout.readline() == "ready\n"
                job = job_file(f"nbd+unix:///alone?socket={socket}", WRITES, self.seconds, MIB, engine="nbd")
                said = run(["fio", "--output-format=json", "-"], stdin=job, timeout=self._limit())
                left, _ = tap.communicate(timeout=60)
                if json.loads(left)["overflowed"]:
                    raise FiguresError("the tap's log has overflowed")
        return figures(said, WRITES)


def _since(before: agent.Status) -> dict[str, Any]:
    """What became of the session that the guest had before a run."""
    after = agent.status(HOSTS[0], NAME)
    return {
        "session_held": agent.protected(after) and agent.session(before) == agent.session(after),
        "epochs": [before.get("committed_epoch"), after.get("committed_epoch")],
    }


def _ran(first: int, last: int) -> float:
    """The part of the time of these epochs in which the guest was neither down nor on its way there, freezing its processes."""
    seen = agent.ask(HOSTS[0], "records", domain=NAME)["epochs"]
    epochs = [one for one in seen if first < one["epoch"] <= last]
    if len(epochs) < 2:
        raise FiguresError(f"{len(epochs)} epochs in the whole run: measure for longer (--seconds)")
    not_running = sum(one["freeze_ns"] + one["down_ns"] for one in epochs[:-1]) / 1e9
    return float(1 - not_running / (epochs[-1]["started"] - epochs[0]["started"]))


@contextlib.contextmanager
def _lower(read_ms: int) -> Iterator[dict[tuple[str, str], str]]:
    """What is compared with the guest's disk or below that, by host and target: loop devices, whose reads take that time."""
    made: dict[tuple[str, str], str] = {}

    def make(host: str) -> None:
        on(host, f"mkdir -p {FOLDER}")
        for target, file in _FILES.items():
            device = drbd.loop(host, file, MIB)
            made[host, target] = slow(host, device, f"slow-{target}", read_ms) if read_ms else device

    def remove(host: str) -> None:
        for target, file in _FILES.items():
            on(host, removal(f"slow-{target}"), timeout=60)
            drbd.unloop(host, file)
        on(host, f"rm -rf {FOLDER}")

    try:
        on_both(make)
        yield made
    finally:
        on_both(remove)


def _fill(archive: bytes) -> str:
    """Give all volumes their blocks, the other host's as well, and the guest its fio."""

    def fill(host: str) -> None:
        on(host, f"dd if=/dev/zero of={VOLUMES[-1].mapper} bs=1M count={MIB} oflag=direct status=none", timeout=300)
        if host == HOSTS[1]:  # its copy of the guest's own disk: what is equal need not travel
            copy = f"dd if={OWN_DISK} of={VOLUMES[0].mapper} bs=1M oflag=direct conv=nocreat,sparse status=none"
            on(host, copy, timeout=600)

    on_both(fill)
    bundle.unpack(HOSTS[0], FOLDER, archive)
    on(HOSTS[0], f"cat >{FOLDER}/tap_alone.py", stdin=(HERE / "tap_alone.py").read_text())
    return f"""
    mkdir -p {FOLDER}/mnt && mount {VOLUMES[1].mapper} {FOLDER}/mnt && mkdir {FOLDER}/mnt/fio
    cp {FOLDER}/*.so* {FOLDER}/fio {FOLDER}/mnt/fio/ || {{ umount {FOLDER}/mnt; exit 1; }}
    umount {FOLDER}/mnt
    """


@contextlib.contextmanager
def prepared(
    seconds: float, turns: int, read_ms: int, interval_ms: int | None, log: Callable[[str], None]
) -> Iterator[Pair]:
    """The guest on the first host with a disk that nobody uses, unprotected, and beside it the other devices. Afterwards the
    lab's own guest runs there again."""
    require_agents()
    archive = bundle.packed(FIO)
    try:
        for host in HOSTS:
            on(host, f"xl destroy {GUEST} 2>/dev/null || true", timeout=180)
        log("preparing devices and guest")
        disks = (*VOLUMES[:-1], replace(VOLUMES[-1], read_ms=read_ms))
        with _lower(read_ms) as devices, volumes(*disks):
            fill = _fill(archive)
            mirrored = {host: devices[host, names.DRBD] for host in HOSTS}
            with drbd.mirror(mirrored), second_guest(HOSTS[0], disks, fill=fill, boot=BOOT):
                database.wait_ready(ADDRESS)
                yield Pair(devices[HOSTS[0], names.BARE], seconds, turns, interval_ms, log)
    finally:
        log("putting the lab back")
        come_home()
