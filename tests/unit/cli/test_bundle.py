"""A support bundle has what helps, and nothing that is secret."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_agent import STATUS, FakeAgent
from hypothesis import given
from hypothesis import strategies as st

from remus_agent.cli import bundle, new_file
from remus_agent.cli import main as cli
from remus_agent.cli.redact import REMOVED, configuration, redacted
from remus_agent.protocol import control

KEY = (
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hbGljZSdzIHNlY3JldA\nq8Zr0Yt5bQ==\n-----END PRIVATE KEY-----\n"
)
SECRETS = (
    "hunter2-ipmi",
    "0pen:sesame=x",
    "snmp-private",
    "MC4CAQAwBQYDK2VwBCIEIJ1hbGljZSdzIHNlY3JldA",
    "q8Zr0Yt5bQ==",
)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A host whose configuration names secrets, and whose logs leak them."""
    etc, state = tmp_path / "etc", tmp_path / "state"
    etc.mkdir()
    (state / "guests").mkdir(parents=True)
    (state / "guests" / "redis1.json").write_text('{"name": "redis1", "peer": "beta"}')
    (etc / "host.key").write_text(KEY)
    secrets = etc / "fence-beta.secrets"
    secrets.write_text(f"password={SECRETS[0]}\npasswd_script={SECRETS[1]}\n")
    secrets.chmod(0o600)
    (etc / "agent.toml").write_text(
        '[host]\nname = "alpha"\n[replication]\nlisten = "192.0.2.1:7789"\npeers = { beta = "192.0.2.2:7789" }\n'
        f'[tls]\nca = "{etc}/ca.pem"\ncertificate = "{etc}/host.pem"\nkey = "{etc}/host.key"\n'
        f'[fencing.beta]\nagent = "fence_apc_snmp"\nsecrets = "{secrets}"\n'
        f'[fencing.beta.options]\nip = "192.0.2.9"\nsnmp_priv_passwd = "{SECRETS[2]}"\n'
    )
    log = tmp_path / "log"
    log.write_text("\n".join(["leak:", *SECRETS, KEY, 'password="never-configured"', "https://joe:pw99@host/x"]))
    monkeypatch.setattr(
        bundle,
        "COMMANDS",
        {"host/log.txt": ("cat", str(log)), "xen/info.txt": ("false",), "xen/list.txt": ("no-such-command",)},
    )
    return ["--config", str(etc / "agent.toml"), "--state", str(state)]


def answers(agent: FakeAgent) -> None:
    event = {"id": 1, "event": "fencing-failed", "detail": {"reason": f"fence_apc_snmp said: {SECRETS[0]}"}}
    results: dict[str, dict[str, Any]] = {
        "agent": {"host": "alpha"},
        "list": {"domains": [STATUS]},
        "topology": {"guests": []},
        "events": {"events": [event]},
        "records": {"epochs": [{"epoch": 1}]},
    }
    agent.answers = lambda request: [control.encode_result(request.id, results[request.method])]


def contents(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        found = {}
        for entry in archive:
            file = archive.extractfile(entry)
            assert file is not None
            found[entry.name.partition("/")[2]] = file.read().decode()
    return found


def test_it_has_what_helps(
    agent: FakeAgent, host: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(agent)
    target = tmp_path / "a.tar.xz"
    assert cli.main(["support-bundle", str(target), *host]) == 0
    found = contents(target)
    assert set(found) == {
        *("etc/agent.yaml", "state/guests/redis1.json", "agent/agent.json", "agent/list.json", "agent/topology.json"),
        *("agent/events.json", "agent/records-redis1.json", "host/log.txt", "manifest.json"),
    }
    assert json.loads(found["agent/list.json"]) == {"domains": [STATUS]}
    items = {one["name"]: one["problem"] for one in json.loads(found["manifest.json"])["items"]}
    assert items["xen/info.txt"] == "ended with 1"
    assert items["xen/list.txt"] == "no-such-command: No such file or directory"
    assert items["host/log.txt"] is None
    assert target.stat().st_mode & 0o777 == 0o600
    shown = capsys.readouterr().out
    assert "agent/records-redis1.json" in shown
    assert "no-such-command: No such file" in shown


def test_no_secret_leaves(agent: FakeAgent, host: list[str], tmp_path: Path) -> None:
    answers(agent)
    target = tmp_path / "a.tar.xz"
    assert cli.main(["support-bundle", str(target), *host]) == 0
    found = contents(target)
    everything = "\n".join(found.values())
    for secret in (*SECRETS, "never-configured", "pw99", "BEGIN PRIVATE KEY"):
        assert secret not in everything, secret
    shown = yaml.safe_load(found["etc/agent.yaml"])
    assert shown["fencing"]["beta"]["options"] == {"ip": REMOVED, "snmp_priv_passwd": REMOVED}
    assert shown["replication"]["listen"] == "192.0.2.1:7789"
    assert shown["tls"]["key"].endswith("/host.key")
    assert json.loads(found["agent/list.json"])
    assert f"fence_apc_snmp said: {REMOVED}" in found["agent/events.json"]


def test_secrets_go_also_where_the_configuration_is_broken(agent: FakeAgent, host: list[str], tmp_path: Path) -> None:
    answers(agent)
    config = Path(host[1])
    config.write_text(config.read_text() + "\n[nonsense]\n")
    assert cli.main(["support-bundle", str(tmp_path / "a.tar.xz"), *host]) == 0
    assert SECRETS[2] not in contents(tmp_path / "a.tar.xz")["etc/agent.yaml"]
    config.write_text(config.read_text() + "\nno toml")
    assert cli.main(["support-bundle", str(tmp_path / "b.tar.xz"), *host]) == 0
    shown = contents(tmp_path / "b.tar.xz")["etc/agent.yaml"]
    assert "[fencing.beta.options]" in shown
    assert SECRETS[2] not in shown
    log = contents(tmp_path / "b.tar.xz")["host/log.txt"]
    assert [secret for secret in SECRETS if secret in log] == [
        SECRETS[2]
    ]  # which nothing but its place shows to be one


@pytest.mark.parametrize(
    "text",
    [
        '[fencing.beta.options]\nlogin = "x-secret"\n',
        '[ fencing."be.ta".options ]\nlogin = """\nx-secret\n"""\n',
        '[fencing.beta]\noptions = { login = "x-secret" }\n',
        '[fencing.beta]\noptions.login = "x-secret"\n',
        '[fencing]\nbeta.options.login = "x-secret"\n',
        'fencing = { beta = { options = { login = "x-secret" } } }\n',
        'fencing.beta.options = { login = "x-secret" }\n',
        'fencing.beta.options.login = "x-secret"\n',
        'fencing = "x-secret"\n',
        '[fencing.beta]\noptions = ["x-secret"]\n',
        '# login = "x-secret"\n',
        '[fencing.beta.options]\nlogin = "x-secret\n',
        '[fencing]\nbeta = { agent = "fence_x", options = { login = "x-secret" } }\n',
    ],
)
def test_every_way_to_write_options_of_fence_agents(text: str) -> None:
    assert "x-secret" not in configuration(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "password=abc123",
            'password: "abc123"',
            "PASSWD = 'abc123'",
            '"token": "abc123"',
            "api_key=abc123",
            "my-secret: abc123",
        ),
        *("Authorization: Bearer abc123", "http://me:abc123@host", "--password=abc123", "snmp_community=abc123"),
        *(r'{"reason": "said: password=\"abc123\" twice"}', r'password = "a\"abc123"', "TOKEN='abc123'"),
    ],
)
def test_what_looks_like_a_secret(text: str) -> None:
    assert "abc123" not in redacted(text, ())


@given(st.text(), st.sets(st.text(min_size=4), max_size=3))
def test_a_known_secret_is_nowhere(text: str, secrets: set[str]) -> None:
    secrets = {secret for secret in secrets if secret not in REMOVED}
    for secret in secrets:
        assert secret not in redacted(f"{text}{secret}{text}", [secret]).replace(REMOVED, "")


def test_without_an_agent_it_takes_the_rest(host: list[str], tmp_path: Path) -> None:
    target = tmp_path / "a.tar.xz"
    assert cli.main(["--socket", str(tmp_path / "none"), "support-bundle", str(target), *host]) == 0
    items = {one["name"]: one for one in json.loads(contents(target)["manifest.json"])["items"]}
    assert "no agent answers" in items["agent/agent.json"]["problem"]
    assert items["host/log.txt"]["bytes"] > 0


def test_its_size_is_bounded_and_the_end_is_kept(
    agent: FakeAgent, host: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(agent)
    monkeypatch.setattr(bundle, "MOST_OF_ONE", 1000)
    printf = ("printf", "%05000d the end", "0")
    monkeypatch.setattr(bundle, "COMMANDS", {f"host/{number}.txt": printf for number in range(4)})
    monkeypatch.setattr(bundle, "MOST_OF_ALL", 4000)
    target = tmp_path / "a.tar.xz"
    assert cli.main(["support-bundle", str(target), *host]) == 0
    found = contents(target)
    manifest = json.loads(found.pop("manifest.json"))
    assert sum(map(len, found.values())) <= 4000
    assert found["host/0.txt"].endswith("0 the end")
    assert len(found["host/0.txt"]) == 1000
    assert any(one["left_out"] and not one["bytes"] for one in manifest["items"])


def test_a_file_that_is_there_is_not_replaced(
    host: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "a.tar.xz"
    target.write_text("mine")
    assert cli.main(["support-bundle", str(target), *host]) == 13
    assert target.read_text() == "mine"
    assert "does not exist yet" in capsys.readouterr().err


def full(*_: object) -> None:
    """A write to a disk without space."""
    raise OSError(28, os.strerror(28))


def test_a_full_disk_leaves_nothing(
    agent: FakeAgent,
    host: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers(agent)
    monkeypatch.setattr(bundle._Bundle, "write", full)
    assert cli.main(["support-bundle", str(tmp_path / "a.tar.xz"), *host]) == 13
    assert not (tmp_path / "a.tar.xz").exists()
    assert "No space left" in capsys.readouterr().err


COLLECTS = """
import sys
from remus_agent.cli import bundle, main
begun, target, *options = sys.argv[1:]
bundle.COMMANDS = {"host/uname.txt": ("uname", "-a"), "host/log.txt": ("sh", "-c", f"echo > {begun}; exec sleep 60")}
main.main(["--socket", "none", "support-bundle", target, *options])
"""


def test_one_that_is_killed_leaves_nothing(host: list[str], tmp_path: Path) -> None:
    """An archive that is not whole has no name."""
    begun, target = tmp_path / "begun", tmp_path / "bundles" / "a.tar.xz"
    target.parent.mkdir()
    os.mkfifo(begun)
    with subprocess.Popen([sys.executable, "-c", COLLECTS, begun, target, *host], start_new_session=True) as process:
        begun.read_text()  # waits for the command
        os.killpg(process.pid, signal.SIGKILL)
    assert list(target.parent.iterdir()) == []


def test_a_file_system_without_files_that_have_no_name(
    agent: FakeAgent, host: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(agent)
    monkeypatch.setattr(new_file, "_without_name", lambda _: None)
    target = tmp_path / "a.tar.xz"
    assert cli.main(["support-bundle", str(target), *host]) == 0
    assert "manifest.json" in contents(target)
    target.unlink()
    monkeypatch.setattr(bundle._Bundle, "write", full)
    assert cli.main(["support-bundle", str(target), *host]) == 13
    assert not target.exists()


def test_a_name_that_somebody_takes_meanwhile_stays_his(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with pytest.raises(FileExistsError), new_file.new_file(target) as file:
        file.write(b"mine")
        target.write_text("his")
    assert target.read_text() == "his"
    assert list(tmp_path.iterdir()) == [target]


def test_a_command_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundle, "_SECONDS", 0.2)
    with tarfile.open(fileobj=io.BytesIO(), mode="w") as archive:
        made = bundle._Bundle(archive, "x", frozenset())
        bundle._run(made, "a", ("sleep", "60"))
    assert made.taken[0].problem == "did not end within 0.2 s"
