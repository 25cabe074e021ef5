"""A network namespace that another lab left is replaced, one that is in use is not; cables and links are cut and healed."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.errors import LabError
from lab.network import RULES, TABLE, Network
from lab.progress import Progress
from lab.spec import HOSTS, Paths
from lab.taps import create_tap, in_namespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
NAMESPACE = f"remus-unit-{os.getpid()}"


def network(folder: Path) -> Network:
    return Network(Paths(folder, folder), NAMESPACE)


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Network]:
    """The namespace as another lab made it."""
    other = network(tmp_path / "other")
    other.ensure(Progress(quiet=True))
    yield other
    subprocess.run(["ip", "netns", "delete", NAMESPACE], check=False)


def test_one_that_nobody_uses_is_replaced(left: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = network(tmp_path / "mine")
    assert mine.ensure(Progress())
    assert mine.exists()
    assert not left.exists()
    assert f"replacing network namespace {NAMESPACE}" in capsys.readouterr().out
    assert not mine.ensure(Progress(quiet=True))


def test_one_with_the_tap_of_a_host_is_kept(left: Network, tmp_path: Path) -> None:
    tap = create_tap(NAMESPACE, HOSTS[0].tap("guests"))
    try:
        with pytest.raises(LabError, match="in use; take the other lab down first"):
            network(tmp_path / "mine").ensure(Progress(quiet=True))
        assert left.exists()
    finally:
        os.close(tap)


def test_one_with_a_process_in_it_is_kept(left: Network, tmp_path: Path) -> None:
    command = ["ip", "netns", "exec", NAMESPACE, "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.read(1)  # it has entered
        with pytest.raises(LabError, match="in use"):
            network(tmp_path / "mine").ensure(Progress(quiet=True))
        assert left.exists()
        process.stdin.close()


def test_cables_and_links_are_cut_once_and_healed(left: Network) -> None:
    assert left.cuts() == {"from_host": [], "to_host": [], "between": []}
    assert left.change_link("replication", "alpha", "out", cut=True)
    assert not left.change_link("replication", "alpha", "out", cut=True)
    assert left.change_link("guests", "alpha", "both", cut=True, peer="gamma")
    assert left.change_link("guests", "beta", "in", cut=True, peer="gamma")
    assert not left.change_link(
        "guests", "gamma", "out", cut=True, peer="beta"
    )  # the same link, seen from the other side
    assert left.cuts() == {
        "from_host": ["alpha-r"],
        "to_host": [],
        "between": ["alpha-g . gamma-g", "gamma-g . alpha-g", "gamma-g . beta-g"],
    }
    assert left.change_link("guests", "alpha", "in", cut=False, peer="gamma")
    assert left.cuts()["between"] == ["alpha-g . gamma-g", "gamma-g . beta-g"]
    assert left.change_link("guests", "beta", "both", cut=False)
    assert left.cuts()["between"] == ["alpha-g . gamma-g"]
    assert left.change_link("guests", None, "both", cut=False)
    assert left.change_link("replication", None, "both", cut=False)
    assert not left.change_link("replication", None, "both", cut=False)
    assert left.cuts() == {"from_host": [], "to_host": [], "between": []}


def test_without_a_host_every_cable_is_cut(left: Network) -> None:
    assert left.change_link("guests", None, "in", cut=True)
    assert left.cuts()["to_host"] == ["alpha-g", "beta-g", "gamma-g"]


@pytest.mark.parametrize("host", [None, "gamma"])
def test_a_link_has_two_ends(left: Network, host: str | None) -> None:
    with pytest.raises(LabError, match="--peer needs another HOST before it"):
        left.change_link("guests", host, "both", cut=True, peer="gamma")


def test_a_network_without_single_links_says_what_to_do(left: Network) -> None:
    old = "\n".join(line for line in RULES.splitlines() if "between" not in line)
    subprocess.run(
        ["ip", "netns", "exec", NAMESPACE, "nft", "-f", "-"],
        input=f"delete table bridge {TABLE}\n{old}",
        text=True,
        check=True,
    )
    with pytest.raises(LabError, match="take it down and up"):
        left.change_link("guests", "alpha", "both", cut=True, peer="gamma")
    assert left.change_link("guests", "alpha", "both", cut=True)
    assert left.change_link("guests", None, "both", cut=False)


def test_only_frames_between_two_hosts_are_dropped(left: Network) -> None:
    """Three hosts on the guests' bridge, as namespaces on cables that are called like the taps."""
    hosts = {"alpha": 11, "beta": 12, "gamma": 13}

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    def reaches(host: str, number: int) -> bool:
        def refused() -> bool:
            try:
                socket.create_connection((f"10.77.0.{number}", 9), 1).close()
            except ConnectionRefusedError:
                return True  # somebody has answered
            except OSError:
                pass
            return False

        return in_namespace(f"{NAMESPACE}-{host}", refused)

    try:
        for host, number in hosts.items():
            own = f"{NAMESPACE}-{host}"
            ip("netns", "add", own)
            ip("-n", NAMESPACE, "link", "add", f"{host}-g", "type", "veth", "peer", "eth1", "netns", own)
            ip("-n", NAMESPACE, "link", "set", f"{host}-g", "master", "br-guests", "up")
            ip("-n", own, "link", "set", "lo", "up")
            ip("-n", own, "address", "add", f"10.77.0.{number}/24", "dev", "eth1")
            ip("-n", own, "link", "set", "eth1", "up")
        assert all(reaches(host, number) for host in hosts for number in (1, 11, 12, 13))
        left.change_link("guests", "alpha", "both", cut=True, peer="gamma")
        assert not reaches("alpha", 13)
        assert not reaches("gamma", 11)
        assert all(reaches("beta", number) for number in (1, 11, 13))
        assert reaches("alpha", 1)
        left.change_link("guests", None, "both", cut=False)
        assert reaches("alpha", 13)
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "delete", f"{NAMESPACE}-{host}"], check=False)
