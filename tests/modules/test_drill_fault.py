"""remus_drill_fault: its undoing is arranged for first, is seen, and may come twice; what each fault runs."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.remus import drill_faults, drill_fences

from remus_agent import fence_config
from tests.modules.conftest import RunModule, load

PROGRAM = """#!/bin/sh
echo "{name} $*" >> {log}
test ! -e {folder}/{name}-fails || {{ echo "{name} says no" >&2; exit 1; }}
test ! -e {folder}/{name}-says || cat {folder}/{name}-says
"""
LINKS = [{"local": "192.0.2.1", "peer": "192.0.2.2"}]


class Host:
    """Programs that note how they were called. A file NAME-fails or NAME-says makes them fail or say something."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        (folder / "bin").mkdir()
        for name in ("systemctl", "systemd-run", "tc", "ip", "sysctl"):
            path = folder / "bin" / name
            path.write_text(PROGRAM.format(name=name, log=folder / "log", folder=folder))
            path.chmod(0o755)
        self.says("ip", '[{}, {"ifname": "eth7"}]')

    def says(self, name: str, words: str) -> None:
        """What a program prints."""
        (self.folder / f"{name}-says").write_text(words)

    def fails(self, name: str, does: bool = True) -> None:
        """Whether a program fails."""
        path = self.folder / f"{name}-fails"
        path.touch() if does else path.unlink()

    @property
    def log(self) -> list[str]:
        """What was run."""
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host without anything broken."""
    made = Host(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return made


def fault(run_module: RunModule, host: Host, **options: Any) -> dict[str, Any]:
    """Of the module, with its folder in the host's."""
    return run_module("remus_drill_fault", run_dir=str(host.run_dir), **options)


def test_its_end_is_arranged_for_before_it_begins(run_module: RunModule, host: Host) -> None:
    result = fault(run_module, host, fault="agent_kill", seconds=7)
    assert result["changed"] is True
    assert not result.get("failed"), result
    assert result["begins_in"] == 0
    timer, kill = (next(n for n, line in enumerate(host.log) if words in line) for words in ("systemd-run", "KILL"))
    assert timer < kill
    said = host.log[timer].split()
    assert {"--unit=remus-drill-undo", "--on-active=12", "--timer-property=AccuracySec=100ms"} <= set(said)
    assert f"--slice={drill_faults.SLICE}" in said, "not in one that a frozen host freezes"
    assert said[-2:] == ["/bin/sh", f"{host.run_dir}/undo.sh"]
    assert (host.run_dir / "begun").exists()


def test_it_is_undone_once_and_never_again(run_module: RunModule, host: Host) -> None:
    fault(run_module, host, fault="agent_freeze")
    assert fault(run_module, host, state="undone", check=True)["undone"] == "now"
    result = fault(run_module, host, state="undone")
    assert (result["changed"], result["undone"]) == (True, "now")
    assert any("--signal=CONT" in line for line in host.log)
    assert (host.run_dir / "undone").exists()
    result = fault(run_module, host, state="undone")
    assert (result["changed"], result["undone"]) == (False, "nothing")


def test_what_the_hosts_own_timer_undid_is_told(run_module: RunModule, host: Host) -> None:
    fault(run_module, host, fault="agent_kill")
    subprocess.run(["/bin/sh", host.run_dir / "undo.sh"], check=True)
    before = len(host.log)
    result = fault(run_module, host, state="undone")
    assert (result["changed"], result["undone"]) == (False, "timer")
    assert len(host.log) == before


def test_what_is_still_seen_is_not_undone(run_module: RunModule, host: Host) -> None:
    fault(run_module, host, fault="link_cut", links=LINKS)
    host.says("tc", "qdisc ingress ffff: parent ffff:fff1 ---------------- \n")
    result = fault(run_module, host, state="undone")
    assert result["failed"]
    assert f"look at the lines of {host.run_dir}/undo.sh" in result["msg"]
    assert not (host.run_dir / "undone").exists()
    assert (host.run_dir / "not-undone").exists()
    assert "is not undone here" in fault(run_module, host, fault="agent_kill")["msg"]
    (host.folder / "tc-says").unlink()
    assert fault(run_module, host, state="undone")["undone"] == "now"
    assert not (host.run_dir / "not-undone").exists()


def test_check_mode_says_the_lines_and_runs_none_of_them(run_module: RunModule, host: Host) -> None:
    result = fault(run_module, host, fault="link_cut", links=LINKS, check=True)
    assert result["begin"][0] == "tc qdisc add dev eth7 ingress"
    assert result["undo"] == ["tc qdisc del dev eth7 ingress 2>/dev/null || true"]
    assert not [line for line in host.log if " add " in line or "systemd-run" in line]
    assert not host.run_dir.exists()


def test_nothing_begins_that_systemd_would_not_end(run_module: RunModule, host: Host) -> None:
    host.fails("systemd-run")
    result = fault(run_module, host, fault="agent_kill")
    assert "Nothing was broken" in result["msg"]
    assert not any("KILL" in line for line in host.log)
    host.fails("systemd-run", False)
    assert not fault(run_module, host, fault="agent_kill").get("failed"), "it may be tried again"


def test_what_cannot_begin_is_undone(run_module: RunModule, host: Host) -> None:
    host.says("tc", "[]")
    path = host.folder / "bin" / "tc"
    path.write_text(path.read_text() + 'case "$*" in *filter*) echo "no classifier" >&2; exit 2;; esac\n')
    result = fault(run_module, host, fault="one_way_cut", links=LINKS)
    assert "one_way_cut could not be begun: no classifier. It was undone" in result["msg"]
    assert any("qdisc del dev eth7 ingress" in line for line in host.log)
    assert (host.run_dir / "undone").exists()


@pytest.mark.parametrize(
    ("name", "queues", "refused"),
    [
        ("link_cut", '[{"kind": "clsact", "handle": "ffff:"}]', True),
        ("link_cut", '[{"kind": "mq", "handle": "0:", "root": true}]', False),
        ("slow_link", '[{"kind": "htb", "handle": "1:", "root": true}]', True),
        (
            "slow_link",
            '[{"kind": "noqueue", "handle": "0:", "root": true}, {"kind": "ingress", "handle": "ffff:"}]',
            False,
        ),
    ],
)
def test_queues_of_others_are_left_alone(
    run_module: RunModule, host: Host, name: str, queues: str, refused: bool
) -> None:
    host.says("tc", queues)
    result = fault(run_module, host, fault=name, links=LINKS, check=True)
    assert bool(result.get("failed")) is refused
    assert ("has a queue of its own already" in result.get("msg", "")) is refused


def test_faults_of_a_whole_host_begin_after_the_answer(run_module: RunModule, host: Host) -> None:
    """And are held as long as is asked for. A small host takes seconds for the end of the module itself."""
    for name in drill_faults.DEFERRED:
        assert fault(run_module, host, fault=name, seconds=7)["begins_in"] == 5
        (undo,) = (line for line in host.log[-2:] if "--unit=remus-drill-undo" in line)
        assert "--on-active=12" in undo
        assert f"--unit=remus-drill-begin --slice={drill_faults.SLICE} --on-active=5" in host.log[-1]
        (host.run_dir / "undone").touch()


def test_a_fence_agent_is_given_what_the_configuration_says(run_module: RunModule, host: Host, tmp_path: Path) -> None:
    program = tmp_path / "fence_test"
    program.write_text(f"#!/bin/sh\ncat >> {tmp_path}/given\necho - >> {tmp_path}/given\n")
    program.chmod(0o755)
    (tmp_path / "secrets").write_text("password=p\n")
    toml = tmp_path / "agent.toml"
    toml.write_text(
        f'[fencing.a]\nagent = "{program}"\nsecrets = "{tmp_path}/secrets"\n[fencing.a.options]\nip = "a b"\n'
    )
    options = {"fault": "host_power_loss", "fence": "a", "configuration": str(toml)}
    result = fault(run_module, host, **options)
    assert not result.get("failed"), result
    assert "password" not in str(result)
    fault(run_module, host, state="undone")
    given = (tmp_path / "given").read_text().split("-\n")
    assert [text.splitlines() for text in given[:3]] == [
        ["ip=a b", "action=off", "password=p"],
        ["ip=a b", "action=on", "password=p"],
        ["ip=a b", "action=status", "password=p"],
    ]
    assert "no fence agent is configured here for b" in fault(run_module, host, **options | {"fence": "b"})["msg"]


def fence_program(folder: Path, lines: str, timeout: str = "") -> dict[str, Any]:
    """A fence agent with these lines, and the options that have the host `a` switched off by it."""
    program, toml = folder / "fence_test", folder / "agent.toml"
    program.write_text(f"#!/bin/sh\n{lines}")
    program.chmod(0o755)
    toml.write_text(f'[fencing.a]\nagent = "{program}"\n{timeout}')
    return {"fault": "host_power_loss", "fence": "a", "configuration": str(toml)}


@pytest.mark.parametrize(("timeout", "after"), [("timeout = 7.5\n", 20 + 5 + 8), ("", 20 + 5 + 60)])
def test_a_slow_fence_agent_has_switched_off_before_the_host_switches_on(
    run_module: RunModule, host: Host, timeout: str, after: int
) -> None:
    """Else `on` comes while `off` waits for its turn, and the host is off when all is over."""
    fault(run_module, host, **fence_program(host.folder, "exit 0\n", timeout))
    (timer,) = (line for line in host.log if line.startswith("systemd-run"))
    assert f"--on-active={after} " in timer


def test_a_fence_agent_that_hangs_is_given_up(run_module: RunModule, host: Host) -> None:
    lines = f"cat >> {host.folder}/given\nexec sleep 20\n"
    began = time.monotonic()
    result = fault(run_module, host, **fence_program(host.folder, lines, "timeout = 0.2\n"))
    assert time.monotonic() - began < 20
    assert "the fault is not undone: Killed" in result["msg"]
    assert (host.folder / "given").read_text().split() == ["action=off", "action=on", "action=status"]


def test_a_drill_waits_for_a_fence_agent_as_the_agent_does() -> None:
    assert fence_config.TIMEOUT == drill_fences.TIMEOUT
    assert str(fence_config.AGENTS) == drill_fences.AGENTS


def test_what_is_missing_is_named(run_module: RunModule, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.says("ip", "[{}]")
    assert "no interface has the address 192.0.2.1" in fault(run_module, host, fault="link_cut", links=LINKS)["msg"]
    assert "needs links" in fault(run_module, host, fault="link_cut")["msg"]
    module = load("remus_drill_fault")
    assert module.has_controller("io", str(host.folder / "none")) is False
    fence = {"fault": "host_power_loss", "fence": "b", "configuration": str(host.folder / "none")}
    assert "cannot be read: " in fault(run_module, host, **fence)["msg"]
    monkeypatch.setattr(basic.AnsibleModule, "get_bin_path", lambda self, name, **_: None)
    assert "is not installed here. Next: install it" in fault(run_module, host, fault="agent_kill")["msg"]


def test_writes_that_cannot_be_stalled_are_named(
    run_module: RunModule, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill_faults, "CGROUPS", str(host.folder / "none"))
    monkeypatch.setattr(basic.AnsibleModule, "get_bin_path", lambda self, name, **_: f"/bin/{name}")
    result = fault(run_module, host, fault="disk_stall")
    assert "the kernel's controller 'io' is not there" in result["msg"]
    assert result["by_hand"] == f"sh {host.run_dir}/undo.sh"


def run(script: str) -> int:
    """A script of a fault; its exit status."""
    return subprocess.run(["/bin/sh"], input=script, text=True, check=False).returncode


def test_a_host_without_a_slice_of_users_is_frozen_and_goes_on(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing looks after sessions, systemd never starts that slice."""
    frozen = host.folder / "system.slice" / "cgroup.freeze"
    frozen.parent.mkdir()
    host.run_dir.mkdir()
    monkeypatch.setattr(drill_faults, "CGROUPS", str(host.folder))
    made = drill_faults.work("host_freeze")
    frozen.write_text("0\n")
    assert run(drill_faults.begin_script("host_freeze", made, host.run_dir)) == 0
    assert frozen.read_text() == "1\n"
    assert run(f"if {made.look}; then exit 1; fi") == 0, "it is seen"
    assert run(drill_faults.undo_script("host_freeze", made, host.run_dir)) == 0
    assert frozen.read_text() == "0\n"
    assert not (host.folder / "user.slice").exists()


def test_a_beginning_that_comes_after_the_end_is_none(host: Host) -> None:
    """A busy host may come to the one timer as late as to the other."""
    host.run_dir.mkdir()
    made = drill_faults.work("agent_kill", unit="x.service")
    assert run(drill_faults.undo_script("agent_kill", made, host.run_dir)) == 0
    assert run(drill_faults.begin_script("agent_kill", made, host.run_dir)) != 0
    assert not any("KILL" in line for line in host.log)


@pytest.mark.parametrize("taken", [True, False])
def test_a_limit_that_the_kernel_does_not_take_is_no_stall(
    host: Host, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """systemd says in its journal alone that it was refused."""
    group = host.folder / "x.service"
    group.mkdir()
    host.run_dir.mkdir()
    monkeypatch.setattr(drill_faults, "CGROUPS", str(host.folder))
    host.says("systemctl", "/x.service")
    (group / "io.max").write_text("254:0 rbps=max wbps=2 riops=max wiops=max\n" if taken else "")
    made = drill_faults.work("disk_stall", unit="x.service", path=str(host.folder))
    assert run(drill_faults.begin_script("disk_stall", made, host.run_dir)) == (0 if taken else 1)
    assert (group / "cgroup.procs").exists() is taken, "something was written from within its group"
    assert not (host.folder / ".remus-drill").exists()
    host.says("systemctl", "")
    monkeypatch.setattr(drill_faults, "CGROUPS", str(group))
    look = drill_faults.work("disk_stall", unit="x.service", path="/").look
    assert run(look) == (1 if taken else 0), "what still has a limit is not undone"


def test_lines_of_each_fault() -> None:
    lines = {
        name: drill_faults.work(
            name, unit="x.service", links=[{"interface": "e0", "peer": "fd00::2"}], delay_ms=250, path="/var/lib/remus"
        )
        for name in drill_faults.FAULTS
    }
    assert lines["one_way_cut"].begin == [
        "tc qdisc add dev e0 ingress",
        "tc filter add dev e0 parent ffff: protocol ipv6 u32 match ip6 src fd00::2/128 action drop",
    ]
    assert "netem delay 250ms" in lines["slow_link"].begin[1]
    assert lines["slow_link"].begin[2].endswith("match ip6 dst fd00::2/128 flowid 1:4")
    stall = "systemctl set-property --runtime x.service 'IOWriteBandwidthMax=/var/lib/remus 2'"
    assert lines["disk_stall"].begin[0] == stall, "the kernel takes no limit of one byte a second"
    assert lines["disk_stall"].undo == ["systemctl set-property --runtime x.service IOWriteBandwidthMax="]
    assert lines["witness_loss"].begin == ["systemctl stop x.service"]
    assert lines["host_power_loss"].begin == ["echo b > /proc/sysrq-trigger"]
    frozen = " ".join(lines["host_freeze"].begin)
    assert "/sys/fs/cgroup/system.slice/cgroup.freeze" in frozen
    assert drill_faults.SLICE not in frozen
    for name, made in lines.items():
        for script in (drill_faults.begin_script(name, made, "/run/x"), drill_faults.undo_script(name, made, "/run/x")):
            subprocess.run(["/bin/sh", "-n"], input=script, text=True, check=True)
        assert made.undo, name
