"""The hosts' BMCs: real IPMI from ipmitool to ipmi_sim, by which a host is switched off, and on again."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.chassis import Chassis
from lab.errors import LabError
from lab.pair import Pair
from lab.progress import Progress
from lab.spec import HOSTS, WITNESS, Paths, Settings
from managed_host import ManagedHost, free_port, managed


@pytest.fixture
def alpha(tmp_path: Path) -> Iterator[ManagedHost]:
    yield from managed(tmp_path)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Of a lab where nothing runs."""
    return Pair(
        Paths(tmp_path / "state", tmp_path / "cache"),
        Settings(ssh_base_port=free_port(), namespace="remus-no-lab"),
        Progress(quiet=True),
    )


def power(host: ManagedHost) -> str:
    return host.ipmitool("chassis", "power", "status").removeprefix("Chassis Power is ")


def test_off_and_on_again(alpha: ManagedHost) -> None:
    """It lives without its host, and says what is so whoever has switched it."""
    first = alpha.host.record()
    assert power(alpha) == "on"
    alpha.ipmitool("chassis", "power", "off")
    assert power(alpha) == "off"
    assert not alpha.host.running()
    alpha.ipmitool("chassis", "power", "off")
    alpha.ipmitool("chassis", "power", "on")
    assert power(alpha) == "on"
    second = alpha.host.record()
    alpha.ipmitool("chassis", "power", "on")
    assert alpha.host.record() == second != first
    alpha.host.kill()
    assert power(alpha) == "off"


def test_a_reset_is_another_boot(alpha: ManagedHost) -> None:
    first = alpha.host.record()
    alpha.ipmitool("chassis", "power", "reset")
    assert power(alpha) == "on"
    assert alpha.host.record() != first


def test_what_it_cannot_do_is_an_error_and_changes_nothing(alpha: ManagedHost) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        alpha.ipmitool("chassis", "power", "soft")
    assert power(alpha) == "on"
    assert "orderly shutdown" in (alpha.bmc.folder / "ipmi_sim.log").read_text()


@pytest.mark.parametrize("cipher", [0, 3])
def test_it_lets_nobody_in_who_does_not_know_the_name(alpha: ManagedHost, cipher: int) -> None:
    """Cipher suite 0 asks for no password."""
    for user in ("root", "admin", "lab"):
        with pytest.raises(subprocess.CalledProcessError):
            alpha.ipmitool("chassis", "power", "off", cipher=cipher, user=user)
    assert alpha.host.running()


def test_it_wants_the_password(alpha: ManagedHost, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("0123456789abcdef")
    with pytest.raises(subprocess.CalledProcessError):
        alpha.ipmitool("chassis", "power", "off", password=tmp_path / "wrong")
    assert alpha.host.running()


def test_its_secrets_are_roots_alone_and_on_no_command_line(alpha: ManagedHost) -> None:
    bmc = alpha.bmc
    assert stat.S_IMODE(bmc.folder.parent.stat().st_mode) == 0o700
    for path in (bmc.user, bmc.password, bmc.folder / "lan.conf"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    record = (bmc.folder / "ipmi_sim.json").read_text()
    pid = int(record.split('"pid": ')[1].split(",")[0])
    line = Path(f"/proc/{pid}/cmdline").read_text()
    power(alpha)
    for secret in (bmc.user.read_text(), bmc.password.read_text()):
        assert len(secret) > 12
        assert secret not in line
        assert secret not in (bmc.folder / "ipmi_sim.log").read_text()


def test_status_has_its_port_and_down_ends_it(alpha: ManagedHost) -> None:
    status = alpha.pair.status()
    assert status["hosts"]["alpha"]["bmc_port"] == alpha.bmc.port == status["hosts"]["alpha"]["ssh_port"]
    assert status["hosts"]["beta"]["bmc_port"] is None
    assert alpha.pair.down()
    assert not alpha.bmc.running()
    assert not alpha.bmc.folder.exists()
    assert not alpha.host.running()


def test_each_has_secrets_of_its_own_which_it_keeps(pair: Pair) -> None:
    one, other = pair.bmcs
    assert (one.spec, other.spec) == HOSTS, f"{WITNESS.name} has none"
    for bmc in (one, other):
        bmc.write_files()
    known = one.user.read_text(), one.password.read_text()
    assert set(known).isdisjoint((other.user.read_text(), other.password.read_text()))
    one.write_files()
    assert known == (one.user.read_text(), one.password.read_text())
    assert one.forget()
    assert not one.forget()


def test_without_ipmi_sim_the_package_is_named(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LabError, match="apt-get install openipmi"):
        pair.up(bmc=True)
    assert not pair.paths.state.exists()


def test_a_port_that_somebody_has_is_named(pair: Pair) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as somebody:
        somebody.bind(("127.0.0.1", pair.bmcs[0].port))
        with pytest.raises(LabError, match=f"UDP port {pair.bmcs[0].port}"):
            pair.bmcs[0].start()
    assert not pair.bmcs[0].running()


def test_switching_on_waits_for_no_boot_of_another_command(pair: Pair) -> None:
    with pair.locked(), pytest.raises(LabError, match="another lab command is at work"):
        pair.power_on("alpha")
    with pytest.raises(LabError, match="bring it up first"):
        pair.power_on("alpha")


def test_what_ipmi_sim_asks() -> None:
    done: list[str] = []
    chassis = Chassis("alpha", on=lambda: done.append("on"), off=lambda: done.append("off"), powered=lambda: True)
    assert chassis.answer(["get", "power", "boot"]) == ["power:1", "boot:default"]
    for words in (["set", "boot", "pxe"], ["set", "identify", "15 0"], ["set", "identify", "15", "0"]):
        assert chassis.answer(words) == []
    assert done == []
    assert chassis.answer(["set", "reset", "1"]) == []
    assert done == ["off", "on"]
    for words in ([], ["set", "power"], ["set", "power", "2"], ["get", "fan"], ["check", "power", "1"]):
        with pytest.raises(LabError, match="alpha"):
            chassis.answer(words)


def test_its_program_is_labctl_itself(pair: Pair) -> None:
    """Where a host was never started it says off; an environment of its own needs nothing but PATH."""
    bmc = pair.bmcs[0]
    bmc.write_files()
    found = subprocess.run(
        [bmc.chassis, "get", "power"], capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}
    )
    assert found.stdout == "power:0\n"
