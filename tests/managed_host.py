"""A lab host with a real BMC, for tests without a lab: ipmi_sim, `labctl chassis`, and instead of QEMU a process that sleeps."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

LAB = Path(__file__).resolve().parents[1] / "roles" / "xen_lab" / "files"
sys.path.insert(0, str(LAB))

from lab.bmc import Bmc, write_secret  # noqa: E402  (the role's package is not installed)
from lab.hosts import Host  # noqa: E402
from lab.pair import Pair  # noqa: E402
from lab.progress import Progress  # noqa: E402
from lab.spec import HOSTS, Paths, Settings, save_settings  # noqa: E402

CHASSIS = Path(__file__).with_name("managed_chassis.py")
PACKAGES = {"ipmi_sim": "openipmi", "ipmitool": "ipmitool"}


def require_ipmi() -> None:
    """Fail, naming the package, where a program is missing that `make setup` installs."""
    for program, package in PACKAGES.items():
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing; `make setup` installs Debian's package {package}", pytrace=False)


def free_port() -> int:
    """A UDP port that nobody had a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class ManagedHost:
    """alpha of a lab that has nothing else."""

    pair: Pair
    bmc: Bmc

    @property
    def host(self) -> Host:
        return self.pair.host("alpha")

    def ipmitool(self, *words: str, cipher: int = 3, user: str | None = None, password: Path | None = None) -> str:
        """Output of ipmitool. Raises CalledProcessError."""
        access = ["-U", user or self.bmc.user.read_text(), "-f", str(password or self.bmc.password)]
        line = ["ipmitool", "-I", "lanplus", "-C", str(cipher), "-H", "127.0.0.1", "-p", str(self.bmc.port), *access]
        done = subprocess.run([*line, *words], capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.strip()


def managed(folder: Path) -> Iterator[ManagedHost]:
    """It is on, and its BMC answers; afterwards neither runs."""
    require_ipmi()
    settings = Settings(ssh_base_port=free_port(), namespace="remus-no-lab")
    paths = Paths(folder / "a lab's state", folder / "cache")
    save_settings(paths, settings)
    paths.acceleration.write_text("emulation")
    pair = Pair(paths, settings, Progress(quiet=True))
    bmc = Bmc(HOSTS[0], paths, settings)
    bmc.write_files()
    words = [sys.executable, str(CHASSIS), "--state", str(paths.state), "chassis", "alpha"]
    write_secret(bmc.chassis, f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', 0o700)
    found = ManagedHost(pair, bmc)
    try:
        bmc.launch()
        subprocess.run([bmc.chassis, "set", "power", "1"], check=True, timeout=60)
        yield found
    finally:
        bmc.stop()
        found.host.kill()
