"""`make test`: every test, from the fast ones to the scenarios on two nested Xen hosts, with one verdict at the end.

Each stage is a command that a person could type; its output goes to the terminal as it comes, between two lines that say
what runs and how long it took. The lab is destroyed at the end, also after a failure. A stage that reports a skipped
lab test has failed: on nested Xen everything can run. What needs processor time and no lab, thousands of seeds of the simulation
above all, runs beside the stages with the lab, with the time that these leave; its verdict comes last.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from aloud import run_aloud
from beside import Beside
from cause import cause

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"


@dataclass(frozen=True)
class Stage:
    """One command. report: the JUnit file it writes, from which tests are counted. lab: it needs the pair. guest: the
    type of the guest it is about, if it says so. quick: its playbooks run in one interpreter on each host (`quickly`). beside: it
    runs beside those that follow, its output goes to results/. settings: what else its environment has."""

    name: str
    command: Sequence[str]
    report: str | None = None
    lab: bool = False
    minutes: int = 30
    guest: str | None = None
    quick: bool = False
    beside: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What the command finds in its environment."""
        guest = {"LAB_GUEST": self.guest} if self.guest else {}
        return {**os.environ, **guest, **(quickly() if self.quick else {}), **self.settings}


@dataclass
class Counts:
    """Tests over all stages. notes: a line for each stage. causes: what those that failed had to say."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    notes: list[str] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)


def pytest(name: str, *arguments: str) -> tuple[str, ...]:
    """A pytest command that writes results/<name>.xml."""
    return (sys.executable, "-m", "pytest", f"--junitxml={RESULTS / name}.xml", *arguments)


LAB = pytest("lab", "-m", "lab and not long", "--timeout=1500", "--durations=0", "--durations-min=5")
LINT = ("make", "--no-print-directory", "lint-python")
DESTROY_COMMAND = ("molecule", "destroy", "-s", "default")
"""Also makes molecule forget that it has created hosts: it believes its own record, and does not look."""


FORGET = Stage("forget hosts of an earlier run", DESTROY_COMMAND, minutes=10)
BOOT = Stage("boot two nested Xen hosts", ("molecule", "create", "-s", "default"), lab=True, minutes=45)
GUESTS = {"12": ("pvh", "hvm", "pv"), "13": ("pvh", "hvm")}
"""Types of guest that hosts of a Debian release can protect: Debian 13 builds Xen without shadow paging, Debian 12 did not
at first."""


BARE = (
    Stage("stop the hosts, others are booted", DESTROY_COMMAND, minutes=10),
    Stage(
        "scenario bare: from plain Debian to a protected guest",
        ("molecule", "test", "-s", "bare"),
        report="molecule-bare",
        lab=True,
        minutes=150,
    ),
)
"""A pair of its own, which it creates and destroys."""
LINT_ANSIBLE = Stage("Ansible lint", ("make", "--no-print-directory", "lint-ansible"), minutes=30, beside=True)
SIMULATION = Stage(
    "10,000 seeds of the simulation",
    (sys.executable, "-u", "-m", "tests.model.simulate", "--seeds", "0:8000", "--moved", "0:2000", "--jobs", "2"),
    minutes=30,
    beside=True,
)


def quickly() -> Mapping[str, str]:
    """Settings for Ansible under which Mitogen keeps one interpreter on each host. Ansible by itself starts one for each task,
    and has it compile the same modules again: 10 to 30 s on an emulated host (docs/adr/0008)."""
    found = importlib.util.find_spec("ansible_mitogen")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("Mitogen is not installed: run `make setup`")
    return {
        "ANSIBLE_STRATEGY": "mitogen_linear",
        "ANSIBLE_STRATEGY_PLUGINS": str(Path(found.submodule_search_locations[0]) / "plugins" / "strategy"),
        "ANSIBLE_DEPRECATION_WARNINGS": "False",  # of strategies that are not Ansible's own
        "ANSIBLE_HOST_KEY_CHECKING": "False",  # Mitogen wants keys that are known; these hosts are on the loopback device
    }


def scenario(name: str) -> Stage:
    """A molecule scenario on hosts that run, with the tests of its verifier."""
    command = ("molecule", "test", "-s", name, "--destroy=never")
    return Stage(f"scenario {name}", command, report=f"molecule-{name}", lab=True, minutes=40)


def lab_file(file: Path) -> Stage:
    """Every lab test of a file, by itself: that is where a run of several hours can go on."""
    command = pytest(file.stem, "-m", "lab", "--timeout=5400", "--durations=0", "--durations-min=5", str(file))
    return Stage(f"lab {file.stem.removeprefix('test_')}", command, report=file.stem, lab=True, minutes=240)


def failover(guest: str) -> Stage:
    """The scenario failover with a guest of this type."""
    return replace(scenario("failover"), name=f"scenario failover, {guest.upper()} guest", guest=guest)


def failovers(guests: Sequence[str]) -> tuple[Stage, ...]:
    """The failover of guests of these types, and nothing else."""
    found: list[Stage] = []
    for guest in guests:
        if not found or guest == "pv":  # a PV guest needs hosts with another Xen
            found += (FORGET, replace(BOOT, guest=guest))
        found.append(failover(guest))
    return tuple(found)


def shortened(name: str, **settings: str) -> Stage:
    """A scenario for the hour: through Mitogen, and with less of what it does again and again."""
    return replace(scenario(name), quick=True, settings=settings)


def scenarios(*, every: bool) -> tuple[Stage, ...]:
    """What runs on the pair after the lab tests. Those that need a witness come last: site.yml has to tell the agents of it."""
    if every:
        others = ("drill", "partition", "frozen_primary", "reprotect", "witness_loss")
        return (scenario("switchover"), failover("pvh"), failover("hvm"), *(scenario(name) for name in others))
    return (
        shortened("switchover", LAB_SWITCHOVERS="2"),
        replace(failover("pvh"), quick=True),
        shortened("partition", LAB_INCIDENTS="two-way"),
    )


def stages(*, every: bool) -> tuple[Stage, ...]:
    """What runs, in order. every: also what does not fit into an hour, and through nothing but Ansible."""
    files = sorted((ROOT / "tests" / "lab").glob("test_*.py"))
    guarantees = Stage("guarantees on the live pair", LAB, report="lab", lab=True, minutes=180)
    return (
        Stage("lint, types and contracts", LINT, minutes=15),
        Stage(
            "unit, property, model and playbook tests",
            pytest("unit", "-n", "2", "--dist=worksteal", "-m", "not lab", "--durations=20", "--durations-min=5"),
            report="unit",
            quick=not every,
        ),
        LINT_ANSIBLE,
        SIMULATION,
        FORGET,
        BOOT,
        scenario("protect") if every else shortened("protect"),
        *((lab_file(file) for file in files) if every else (guarantees,)),
        *scenarios(every=every),
        *(BARE if every else ()),
    )


def going_on(wanted: Sequence[Stage], words: str) -> tuple[Stage, ...]:
    """From the first stage on whose name has these words, on hosts that were booted for it. Raises ValueError: none has."""
    first = next((number for number, stage in enumerate(wanted) if words in stage.name), None)
    if first is None:
        names = "\n".join(f"  {stage.name}" for stage in wanted)
        raise ValueError(f"no stage has {words!r} in its name; there are\n{names}")
    rest = tuple(wanted[first:])
    shared = any(stage.lab and stage not in (BOOT, *BARE) for stage in rest)
    return (*(stage for stage in (FORGET, BOOT) if shared and stage not in rest), *rest)


DESTROY = Stage("stop the hosts", DESTROY_COMMAND, minutes=10)


def main() -> int:
    """Run all stages in order, stopping at the first that fails; 0 when all passed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", action="store_true", help="also the lab tests that do not fit into an hour")
    known = GUESTS[os.environ.get("LAB_DEBIAN") or "13"]
    parser.add_argument(
        "--failovers", nargs="*", choices=known, metavar="TYPE",
        help=f"only the failover of guests of these types, without any of: {', '.join(known)}",
    )  # fmt: skip
    parser.add_argument(
        "--from",
        dest="first",
        metavar="WORDS",
        help="leave out what comes before the first stage with these words in its name",
    )
    options = parser.parse_args()
    wanted = stages(every=options.all) if options.failovers is None else failovers(options.failovers or known)
    if options.first is not None:
        try:
            wanted = going_on(wanted, options.first)
        except ValueError as error:
            parser.error(str(error))
    started = time.monotonic()
    RESULTS.mkdir(exist_ok=True)
    counts = Counts()
    with contextlib.ExitStack() as left:
        failed = run_all(wanted, started, counts, left)
    elapsed = clock(time.monotonic() - started)
    for line in (*counts.notes, *counts.causes):
        print(f"  {line}")
    part = "" if options.first is None else f" from {options.first!r} on"
    verdict = f"FAILED at: {failed}" if failed else f"all stages{part} passed"
    print(f"VERDICT after {elapsed}: {verdict}")
    skipped = f", {counts.skipped} skipped" if counts.skipped else ""
    print(f"{counts.passed} passed, {counts.failed} failed{skipped}", flush=True)
    return 1 if failed else 0


def run_all(wanted: Sequence[Stage], started: float, counts: Counts, left: contextlib.ExitStack) -> str | None:
    """Run stages in order; the name of the first that failed. left: stops what still runs, whatever happens."""
    lab_is_up = False
    failed: str | None = None
    beside: list[tuple[Stage, Beside]] = []
    for number, stage in enumerate(wanted, 1):
        lab_is_up = lab_is_up or stage.lab
        place = f"{number}/{len(wanted)}"
        if stage.beside:
            at = clock(time.monotonic() - started)
            print(f"==> [{place}] {stage.name}, beside what follows (at {at})", flush=True)
            output = RESULTS / f"{re.sub('[^a-z0-9]+', '-', stage.name.lower())}.log"
            process = Beside(stage.command, output, ROOT, stage.environment)
            left.callback(process.stop)
            beside.append((stage, process))
        elif not run(stage, place, started, counts):
            failed = stage.name
            break
    if lab_is_up:
        run(DESTROY, "end", started, counts)
    for stage, process in beside:
        if not finish(stage, process, counts, wanted=failed is None):
            failed = failed or stage.name
    return failed


def run(stage: Stage, number: str, started: float, counts: Counts) -> bool:
    """Run one stage, count its tests, say how it went."""
    report = RESULTS / f"{stage.report}.xml" if stage.report else None
    if report is not None:
        report.unlink(missing_ok=True)
    print(f"==> [{number}] {stage.name} (at {clock(time.monotonic() - started)})", flush=True)
    begun = time.monotonic()
    code, said = run_aloud(stage.command, ROOT, stage.environment, stage.minutes * 60)
    why = f"not finished after {stage.minutes} minutes" if code is None else f"exit code {code}"
    good = code == 0
    if report is not None:
        skipped = count(report, counts)
        if stage.lab and skipped:
            good, why = False, f"{skipped} lab tests were skipped"
    else:
        counts.passed += good
        counts.failed += not good
    line = f"{stage.name}: {'passed' if good else 'FAILED (' + why + ')'} in {clock(time.monotonic() - begun)}"
    counts.notes.append(line)
    counts.causes += [] if good else cause(said)
    print(f"<== {line}", flush=True)
    return good


def finish(stage: Stage, process: Beside, counts: Counts, *, wanted: bool) -> bool:
    """Wait for a stage that ran beside the others, and say how it went. wanted: otherwise it is stopped."""
    code: int | None = None
    try:
        code = process.wait(stage.minutes * 60 if wanted else 0)
        why = f"exit code {code}"
    except subprocess.TimeoutExpired:
        why = f"not finished after {stage.minutes} minutes more" if wanted else "stopped, because another stage failed"
    said = process.output.read_text()[-4000:]
    print(said, end="")
    good = code == 0
    counts.passed += good
    counts.failed += code is not None and not good
    line = f"{stage.name}: " + ("passed" if good else f"FAILED ({why})" if wanted else why)
    counts.notes.append(line)
    counts.causes += cause(said.splitlines()) if wanted and not good else []
    print(f"<== {line}", flush=True)
    return good


def count(report: Path, counts: Counts) -> int:
    """Add up a JUnit file; the number of skipped tests in it. A file that is missing counts as a failure."""
    if not report.exists():
        counts.failed += 1
        return 0
    suites = ET.parse(report).getroot().iter("testsuite")  # noqa: S314 - pytest's own file
    skipped = 0
    for suite in suites:
        numbers = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
        bad = numbers["failures"] + numbers["errors"]
        counts.failed += bad
        counts.skipped += numbers["skipped"]
        counts.passed += numbers["tests"] - bad - numbers["skipped"]
        skipped += numbers["skipped"]
    return skipped


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


if __name__ == "__main__":
    sys.exit(main())
