"""A network namespace that another lab left is replaced; one that is in use is not touched."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.errors import LabError
from lab.network import Network
from lab.progress import Progress
from lab.spec import HOSTS, Paths
from lab.taps import create_tap

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
