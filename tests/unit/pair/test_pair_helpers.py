"""The pure parts of what touches the pair."""

import subprocess

import pytest
from pair import disks, guest, hosts
from pair.guest import Copy, copies, running_copies
from pair.hosts import CommandFailed, run
from pair.load import acknowledged
from pair.wait import TooLate, until

XL_LIST = """Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0   900     1     r-----     153.9
redis1                                       1   128     1     {state}      39.4
redis1--incoming                             2    71     1     --p---       0.0
"""


@pytest.mark.parametrize(
    ("state", "runs"),
    [("r-----", True), ("-b----", True), ("------", True), ("--p---", False), ("---s--", False), ("-----d", False)],
)
def test_a_copy_runs_by_its_letters(state, runs):
    assert Copy("alpha", "redis1", 1, state).runs is runs


def test_copies_include_what_a_toolstack_builds(monkeypatch):
    monkeypatch.setattr(guest, "on", lambda host, command: XL_LIST.format(state="-b----"))
    assert [(copy.name, copy.domid, copy.runs) for copy in copies("alpha")] == [
        ("redis1", 1, True),
        ("redis1--incoming", 2, False),
    ]


def test_hosts_that_are_off_have_no_running_copy(monkeypatch):
    monkeypatch.setattr(guest, "on", lambda host, command: XL_LIST.format(state="------"))
    monkeypatch.setattr(guest, "powered", lambda host: host == "beta")
    assert [(copy.host, copy.name) for copy in running_copies()] == [("beta", "redis1")]


def test_until_returns_what_was_done():
    values = iter([0, 1, 2])
    assert until("two", lambda: next(values), lambda seen: seen == 2, timeout=5, every=0) == 2


def test_until_names_what_was_seen_last():
    with pytest.raises(TooLate, match=r"a miracle: not after 0 s; last seen: .nothing."):
        until("a miracle", lambda: "nothing", lambda seen: False, timeout=0)


def test_until_passes_over_expected_failures_only():
    answers = iter([CommandFailed("down"), "up"])

    def look():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert until("up", look, timeout=5, every=0, passing=(CommandFailed,)) == "up"
    with pytest.raises(ZeroDivisionError):
        until("up", lambda: 1 / 0, timeout=5, passing=(CommandFailed,))


def test_a_failed_command_says_what_it_said():
    with pytest.raises(CommandFailed, match=r"(?s)status 3.*out.*err"):
        run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    with pytest.raises(CommandFailed, match="no end after"):
        run(["sleep", "10"], timeout=0.2)


def test_replies_are_counted_while_the_client_writes(tmp_path):
    history = tmp_path / "history.jsonl"
    assert acknowledged(history) == 0
    history.write_text('{"event":"sent"}\n{"event":"ack","value":1}\n{"event":"ack","value"')
    assert acknowledged(history) == 2


def test_the_lab_is_found_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("REMUS_LAB_DIR", str(tmp_path))
    assert hosts.ssh_config() == tmp_path / "ssh_config"


@pytest.fixture
def hosts_are_here(monkeypatch):
    """Commands for a host run on this machine, outside the project."""

    def here(host, command, *, stdin=None, timeout=120):
        done = subprocess.run(["sh", "-c", command], input=stdin, text=True, capture_output=True, cwd="/", check=False)
        if done.returncode:
            raise CommandFailed(done.stderr)
        return done.stdout

    monkeypatch.setattr(disks, "on", here)


def test_devices_on_two_hosts_are_compared(hosts_are_here, tmp_path):
    one, other = tmp_path / "o'ne", tmp_path / "other"
    for path in (one, other):
        path.write_bytes(bytes(3 << 20))
    pair = ("alpha", str(one)), ("beta", str(other))
    assert disks.compare(*pair) == []
    other.write_bytes(bytes(2 << 20) + b"x" + bytes((1 << 20) - 1))
    assert disks.compare(*pair) == [f"bytes {2 << 20} to {(3 << 20) - 1}"]


def test_a_file_system_on_a_host_is_clean_or_says_why_not(hosts_are_here, tmp_path):
    image = tmp_path / "image"
    image.write_bytes(bytes(4 << 20))
    assert "superblock" in disks.fsck("alpha", str(image))
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    assert disks.fsck("alpha", str(image)) == ""
    with pytest.raises(CommandFailed, match="does not exist"):
        disks.fsck("alpha", str(tmp_path / "none"))
