"""The running lab, and a guest of the tests' own on it.

REMUS_LAB_HOST names the host for tests that need only one (default: beta). Without a running lab every
test here is skipped, with the reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_hosts import LAB_FOLDER, PROJECT, CommandFailed, Guest, Host, labctl, newc
from witnessed import recorded, witness  # noqa: F401 - fixtures of several files


@pytest.fixture(scope="session")
def lab() -> dict[str, Any]:
    """The state of the running lab, or a skip."""
    if not (LAB_FOLDER / "ssh_config").exists():
        pytest.skip(f"no lab in {LAB_FOLDER}: run `make lab-up`")
    state: dict[str, Any] = json.loads(labctl("status"))
    down = [name for name, host in state["hosts"].items() if not host["running"]]
    if down:
        pytest.skip(f"the lab's hosts {', '.join(down)} are down: run `make lab-up`")
    return state


@pytest.fixture(scope="session")
def host(lab: dict[str, Any]) -> Host:
    """The host for tests that need one."""
    return Host(os.environ.get("REMUS_LAB_HOST", "beta"))


@pytest.fixture(scope="session")
def package(host: Host) -> Iterator[str]:
    """A folder on the host with the package, for PYTHONPATH."""
    folder = f"/run/remus-test-{uuid.uuid4().hex[:8]}"
    sources = {str(path.relative_to(PROJECT)): path.read_bytes() for path in PROJECT.glob("remus_agent/**/*.py")}
    sources["buffer_agent.py"] = (Path(__file__).parent / "buffer_agent.py").read_bytes()
    host.put(folder, sources)
    host.run(f"python3 -m compileall -q {folder}")
    yield folder
    host.run(f"rm -rf {folder}")


@pytest.fixture(scope="module")
def probe_guest(host: Host) -> Iterator[Guest]:
    """A guest of the tests' own, made from the lab's guest with another name and other addresses."""
    name, mac, last = "probe-net", "00:16:3e:77:00:96", 150
    assets = PROJECT / "roles" / "xen_lab" / "files" / "assets" / "guest"
    start = (assets / "rcS").read_text().replace("10.77.0.100", f"10.77.0.{last}")
    start = start.replace("fd77::100", f"fd77::{last}")
    beacon = (assets / "beacon").read_text().replace("10, 77, 0, 100", f"10, 77, 0, {last}")
    overlay = newc(
        {
            "etc/rcS": (0o100755, start.encode()),
            "usr/lib/remus-lab/beacon": (0o100755, beacon.encode()),
        }
    )
    folder = f"/root/remus-test-{uuid.uuid4().hex[:8]}"
    host.put(folder, {"overlay.cpio": overlay})
    host.run(f"xl destroy {name} 2>/dev/null; cat /var/lib/remus-lab/guest/initrd.img >{folder}/initrd.img")
    # An archive must start on a multiple of four bytes.
    host.run(f"cd {folder} && truncate -s %4 initrd.img && cat overlay.cpio >>initrd.img")
    changes = "; ".join(
        (
            f's/^name = .*/name = "{name}"/',
            f's|^ramdisk = .*|ramdisk = "{folder}/initrd.img"|',
            f"s/00:16:3e:77:00:64/{mac}/",
        )
    )
    host.run(f"sed '{changes}' /etc/xen/redis1-pvh.cfg >{folder}/{name}.cfg && xl create -q {folder}/{name}.cfg")
    try:
        domid = int(host.run(f"xl domid {name}"))
        yield Guest(host, name, domid, mac, f"10.77.0.{last}")
    finally:
        with contextlib.suppress(CommandFailed):
            host.run(f"xl destroy {name}")
        host.run(f"rm -rf {folder}")
