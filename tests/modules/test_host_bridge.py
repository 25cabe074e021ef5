"""xen_host_bridge on made-up files and interfaces: what it writes, all that it refuses, the trial with stand-ins for ifupdown."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.modules.conftest import load, result_of, results_are_raised

MAIN = """\
# The loopback network interface
source /etc/network/interfaces.d/*

auto lo
iface lo inet loopback
"""
STATIC = """\
# The primary network interface
allow-hotplug eno1
iface eno1 inet static
    # of the rack
    address 192.0.2.11/24
    gateway 192.0.2.1
    up ip route add 198.51.100.0/24 \\
        via 192.0.2.2

iface eno1 inet6 auto

auto lo eno2
iface eno2 inet manual
"""
MOVED = """\
# The primary network interface
auto xenbr0
iface xenbr0 inet static
    bridge_ports eno1
    bridge_hw eno1
    bridge_stp off
    bridge_fd 0
    # of the rack
    address 192.0.2.11/24
    gateway 192.0.2.1
    up ip route add 198.51.100.0/24 \\
        via 192.0.2.2

iface xenbr0 inet6 auto

auto lo eno2
iface eno2 inet manual
"""


class Host:
    """/etc/network and the kernel's interfaces in a folder, with stand-ins for what the trial runs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.sys, self.run = folder / "sys", folder / "run"
        self.main = folder / "network/interfaces"
        (folder / "network/interfaces.d").mkdir(parents=True)
        self.sys.mkdir()
        self.addressed = False
        self.begun: list[Path] = []
        self.write(MAIN)
        for name in ("eno1", "eno2"):
            (self.sys / name).mkdir()
        self.module = load("xen_host_bridge")
        monkeypatch.setattr(self.module, "INTERFACES", str(self.main))
        monkeypatch.setattr(self.module, "SYS", str(self.sys))
        monkeypatch.setattr(self.module, "RUN", str(self.run))
        monkeypatch.setattr(self.module, "addressed", lambda port: self.addressed)
        monkeypatch.setattr(self.module.Trial, "begin", lambda trial, script: self.begun.append(script))
        results_are_raised(monkeypatch)

    def write(self, text: str, name: str = "") -> None:
        """The main file, or one of interfaces.d, in which paths are of this folder."""
        path = self.main.with_name("interfaces.d") / name if name else self.main
        path.write_text(text.replace("/etc/network", str(self.main.parent)))

    def files(self) -> dict[str, str]:
        """Everything below /etc/network."""
        return {path.name: path.read_text() for path in self.main.parent.rglob("*") if path.is_file()}

    def enslave(self, port: str, master: str) -> None:
        """PORT belongs to MASTER."""
        (self.sys / master).mkdir(exist_ok=True)
        (self.sys / port / "master").symlink_to(self.sys / master)

    def ask(self, check: bool = False, **options: Any) -> dict[str, Any]:
        """The module's result for xenbr0 over eno1."""
        words = {"bridge": "xenbr0", "port": "eno1", **options}
        return result_of(self.module, **words, _ansible_check_mode=check)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_check_mode_shows_the_file_and_begins_nothing(host: Host) -> None:
    host.write(STATIC, "lab")
    before = host.files()
    result = host.ask(check=True)
    assert result["changed"]
    assert (result["diff"]["before"], result["diff"]["after"]) == (STATIC, MOVED)
    assert result["diff"]["after_header"].endswith("/interfaces.d/lab")
    assert host.files() == before
    assert host.begun == []
    assert not host.run.exists()


def test_a_trial_changes_no_file_before_it_is_kept(host: Host) -> None:
    host.write(STATIC, "lab")
    before = host.files()
    assert host.ask()["changed"]
    assert host.begun == [host.run / "switch"]
    assert host.files() == before
    assert (host.run / "interfaces").read_text() == "".join(
        f"{line}\n" for line in MOVED.splitlines()[2:14] if line and "#" not in line
    )
    host.enslave("eno1", "xenbr0")  # as it is while the trial lasts
    for check in (True, False):
        assert "on trial now. Next: wait 120 seconds" in host.ask(check=check)["msg"], "not somebody else's bridge"


def test_a_port_without_an_address_gets_a_file_of_its_own(host: Host) -> None:
    result = host.ask(check=True)
    assert result["diff"]["after_header"].endswith("/interfaces.d/xenbr0")
    assert result["diff"]["before"] == ""
    assert result["diff"]["after"].splitlines() == [
        "auto xenbr0",
        "iface xenbr0 inet manual",
        *("    bridge_ports eno1", "    bridge_hw eno1", "    bridge_stp off", "    bridge_fd 0"),
    ]


def test_other_interfaces_on_the_same_line_stay(host: Host) -> None:
    host.write("auto eno2 eno1\niface eno1 inet dhcp\n", "lab")
    after = host.ask(check=True)["diff"]["after"]
    assert after.splitlines()[:3] == ["auto eno2", "auto xenbr0", "iface xenbr0 inet dhcp"]


def test_what_nobody_brings_up_is_brought_up_afterwards(host: Host) -> None:
    host.write("iface eno1 inet dhcp\n", "lab")
    assert host.ask(check=True)["diff"]["after"].splitlines()[:2] == ["auto xenbr0", "iface xenbr0 inet dhcp"]


def test_the_second_time_there_is_nothing_to_do(host: Host) -> None:
    host.write(MOVED, "lab")
    host.enslave("eno1", "xenbr0")
    for check in (True, False):
        assert host.ask(check=check) == {"changed": False}
    assert host.begun == []


Set = Callable[[Host], None]
REFUSED: dict[str, tuple[Set, str]] = {
    "not ifupdown": (lambda host: host.main.unlink(), "network is not ifupdown's. Next: set the bridge up by hand"),
    "no such port": (lambda host: (host.sys / "eno1").rmdir(), "no interface eno1. Next: correct xen_host_bridge_port"),
    "another master": (lambda host: host.enslave("eno1", "bond0"), "eno1 belongs to bond0"),
    "a bridge of somebody": (lambda host: host.enslave("eno1", "xenbr0"), "eno1 belongs to xenbr0, and"),
    "the bridge is there": (lambda host: (host.sys / "xenbr0").mkdir(), "there is an interface xenbr0 that"),
    "over another port": (lambda host: host.write(MOVED.replace("eno1", "eno3"), "lab"), "over eno3, not over eno1"),
    "not up": (lambda host: host.write(MOVED, "lab"), "eno1 is not in it now. Next: run 'ifup xenbr0'"),
    "configured elsewhere": (lambda host: setattr(host, "addressed", True), "something else configures it"),
    "two files": (
        lambda host: (host.write("auto eno1\n", "a"), host.write("iface eno1 inet dhcp\n", "b")),
        "Next: put all of it into one file",
    ),
    "no stanza": (lambda host: host.write("auto eno1\n", "a"), "brings eno1 up without saying how"),
    "folder not read": (lambda host: host.write("auto lo\niface lo inet loopback\n"), "add the line 'source "),
    "names its port": (
        lambda host: host.write("iface eno1 inet dhcp\n up ethtool -s eno1 wol g\n", "a"),
        "'up ethtool -s eno1 wol g' names eno1",
    ),
    "an option of the hardware": (
        lambda host: host.write("iface eno1 inet dhcp\n wpa-ssid x\n", "a"),
        "'wpa-ssid x' may be about the port",
    ),
    "inherits": (
        lambda host: host.write("iface eno1 inet static inherits base\n", "a"),
        "builds on another stanza",
    ),
    "an alias": (lambda host: host.write("iface eno1:1 inet static\n address 192.0.2.1\n", "a"), "names eno1"),
    "part of a bond": (lambda host: host.write("iface bond0 inet dhcp\n bond-slaves eno1 eno2\n", "a"), "names eno1"),
    "a mapping": (lambda host: host.write("mapping eno1\n script /bin/x\n", "a"), "'mapping eno1' names eno1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses_and_leaves_everything(host: Host, name: str) -> None:
    arrange, words = REFUSED[name]
    arrange(host)
    before = host.files()
    for check in (True, False):
        result = host.ask(check=check)
        assert result.get("failed"), result
        assert words in result["msg"]
        assert "Next: " in result["msg"]
    assert host.files() == before
    assert host.begun == []


@pytest.mark.parametrize("name", ["", "eno 1", "a" * 16, "../x"])
def test_a_name_that_is_none_is_refused(host: Host, name: str) -> None:
    assert "is not the name of an interface" in host.ask(port=name)["msg"]


def test_interfaces_with_similar_names_are_others(host: Host) -> None:
    host.write(
        "auto eno1\niface eno1 inet dhcp\n\nauto eno1.5\niface eno1.5 inet manual\niface veno1 inet manual\n", "a"
    )
    assert host.ask(check=True)["diff"]["after"].endswith(
        "auto eno1.5\niface eno1.5 inet manual\niface veno1 inet manual\n"
    )


IFUPDOWN = """\
#!/bin/sh
echo "${0##*/} $*" >>"$CALLS"
case "${0##*/} $*" in "$FAILING"*) exit 1 ;; esac
"""


def perform(
    host: Host, failing: str = "nothing", seconds: int = 1, before: Callable[[], None] = lambda: None
) -> list[str]:
    """Run the script of a trial with stand-ins, without its first delay; what it called."""
    host.write(STATIC, "lab")
    host.ask(seconds=seconds)
    tools = host.folder / "bin"
    tools.mkdir()
    for name in ("ifup", "ifdown", "ip"):
        (tools / name).write_text(IFUPDOWN)
        (tools / name).chmod(0o755)
    script = host.run / "switch"
    script.write_text(script.read_text().replace("sleep 3 ", "sleep 0 "))
    calls = host.folder / "calls"
    calls.touch()
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "CALLS": str(calls), "FAILING": failing}
    before()
    subprocess.run(["sh", str(script)], env=environment, check=True, timeout=60, capture_output=True)
    return calls.read_text().splitlines()


UNDOING = [
    "ifdown --force --interfaces=interfaces xenbr0",
    "ip link delete dev xenbr0 type bridge",
    "ip link set dev eno1 addrgenmode eui64",
    "ifup --force eno1",
]


def test_a_bridge_that_nobody_keeps_is_undone(host: Host) -> None:
    called = perform(host)
    assert called == ["ifdown --force eno1", "ifup --interfaces=interfaces xenbr0", *UNDOING]
    assert host.files()["lab"] == STATIC
    assert "could not be kept, and the network is as it was" in host.ask(state="tried")["msg"]
    token = (host.run / "tried").read_text().strip()
    assert "not on trial any more" in host.ask(state="kept", token=token)["msg"]
    assert host.files()["lab"] == STATIC
    assert host.ask(check=True)["changed"], "it can be begun again"


def test_a_bridge_that_does_not_come_up_is_undone_at_once(host: Host) -> None:
    called = perform(host, failing="ifup --interfaces", seconds=3600)
    assert called[2:] == UNDOING
    assert not (host.run / "tried").exists()


def test_what_is_kept_stays(host: Host) -> None:
    def keep_at_once() -> None:
        """As if somebody came back before the script looks the first time."""
        (host.run / "tried").write_text("word\n")
        assert host.ask(state="tried") == {"changed": False, "up": True, "token": "word"}
        assert host.ask(state="kept", token="word", check=True)["changed"]
        assert host.files()["lab"] == STATIC
        assert host.ask(state="kept", token="word")["changed"]

    called = perform(host, before=keep_at_once)
    assert called == ["ifdown --force eno1", "ifup --interfaces=interfaces xenbr0"]
    assert host.files()["lab"] == MOVED
    assert (host.main.with_name("interfaces.d") / "lab").stat().st_mode & 0o777 == 0o644


def test_bytes_of_another_encoding_stay_as_they_are(host: Host) -> None:
    """Latin-1 in a comment and in an option, in the file that is written and in one that is only read."""

    def latin(text: str) -> bytes:
        return text.replace("of the rack", "f\xfcr B\xfcro").replace("via", "#\xfc via").encode("latin-1")

    host.main.write_bytes(b"# geh\xf6rt zu B\xfcro\n" + host.main.read_bytes())
    file = host.main.with_name("interfaces.d") / "lab"
    file.write_bytes(latin(STATIC))
    shown = host.ask(check=True)["diff"]
    assert "# f\ufffdr B\ufffdro" in shown["before"]
    assert "# f\ufffdr B\ufffdro" in shown["after"]
    host.ask()
    assert b"#\xfc via 192.0.2.2" in (host.run / "interfaces").read_bytes()
    (host.run / "tried").write_text("word\n")
    assert host.ask(state="kept", token="word")["changed"]
    assert file.read_bytes() == latin(MOVED)
    file.write_bytes(latin(STATIC) + b"mapping x\n  script \xfc eno1\n")
    (host.run / "decided").rmdir()
    (host.run / "interfaces").unlink()
    assert "script \ufffd eno1' names eno1" in host.ask()["msg"]


def test_only_who_has_seen_the_bridge_up_can_keep_it(host: Host) -> None:
    host.write(STATIC, "lab")
    host.ask()
    assert host.ask(state="tried") == {"changed": False, "up": False}
    assert "not on trial any more" in host.ask(state="kept", token="guessed")["msg"]
    (host.run / "tried").write_text("word\n")
    assert "not on trial any more" in host.ask(state="kept", token="guessed")["msg"]
    assert host.files()["lab"] == STATIC


def test_addresses_that_a_port_makes_up_itself_do_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = load("xen_host_bridge")
    said = tmp_path / "ip"
    said.write_text('#!/bin/sh\ncat "$SAID"\n')
    said.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SAID", str(tmp_path / "answer"))
    link, made_up = {"family": "inet6", "scope": "link"}, {"family": "inet6", "scope": "global", "dynamic": True}
    for entries, expected in (
        ([link, made_up], False),
        ([link, {"family": "inet", "scope": "global"}], True),
        ([], False),
    ):
        (tmp_path / "answer").write_text(str([{"addr_info": entries}]).replace("'", '"').replace("True", "true"))
        assert module.addressed("eno1") is expected


def test_a_systemd_that_refuses_changes_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.write(STATIC, "lab")
    before = host.files()

    def refuse(trial: Any, script: Path) -> None:
        raise subprocess.CalledProcessError(1, ["systemd-run"], stderr="no bus\n")

    monkeypatch.setattr(host.module.Trial, "begin", refuse)
    result = host.ask()
    assert result["failed"]
    assert "systemd did not take it: no bus" in result["msg"]
    assert host.files() == before
    assert not host.run.exists(), "the next run is not told to wait for it"


def test_a_disk_that_is_full_leaves_the_trial_to_be_undone(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.write(STATIC, "lab")
    before = host.files()
    host.ask()
    (host.run / "tried").write_text("word\n")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = host.ask(state="kept", token="word")
    assert "No space left on device" in result["msg"]
    assert "The files are as before" in result["msg"]
    assert host.files() == before, "ifupdown reads every file of the folder"
    assert not (host.run / "decided").exists(), "the host takes the bridge away by itself"
    assert "on trial now" in host.ask()["msg"]
