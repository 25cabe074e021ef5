"""The sections [fencing.NAME]: strict, and no secret where others can read it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remus_agent import config, fence_config
from remus_agent.errors import ConfigError
from remus_agent.fence_config import FenceAgent, read_secrets

BASE = """
[host]
name = "alpha"
[replication]
listen = "10.78.0.11:7789"
[replication.peers]
beta = "10.78.0.12:7789"
"""


def test_every_key() -> None:
    found = config.parse(
        BASE + '[fencing.beta]\nagent = "fence_ipmilan"\nsecrets = "/etc/remus/beta"\nrequired = true\ntimeout = 20\n'
        '[fencing.beta.options]\nip = "192.0.2.1"\nlanplus = "1"\n'
    ).fencing
    assert found == {
        "beta": FenceAgent(
            Path("/usr/sbin/fence_ipmilan"), {"ip": "192.0.2.1", "lanplus": "1"}, Path("/etc/remus/beta"), True, 20.0
        )
    }


def test_defaults() -> None:
    assert config.parse(BASE).fencing == {}
    assert config.parse(BASE + '[fencing.beta]\nagent = "/opt/off"\n').fencing == {"beta": FenceAgent(Path("/opt/off"))}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fencing = 1", "fencing must be sections"),
        ('[fencing]\nbeta = "x"', r"fencing\.beta must be a section"),
        ("[fencing.gamma]\nagent = 'fence_x'", r"fencing\.gamma: there is no such peer; there is beta"),
        ("[fencing.alpha]\nagent = 'fence_x'", "no such peer"),
        ("[fencing.beta]", r"fencing\.beta\.agent is missing"),
        ("[fencing.beta]\nagent = 'rm -rf'", "is no fence agent"),
        ("[fencing.beta]\nagent = 'fence_../../x'", "is no fence agent"),
        ("[fencing.beta]\nagent = 'fence_x'\nsecret = '/x'", "has no key 'secret'"),
        ("[fencing.beta]\nagent = 'fence_x'\nsecrets = 'x'", "must be an absolute path"),
        ("[fencing.beta]\nagent = 'fence_x'\nrequired = 'yes'", "must be true or false"),
        ("[fencing.beta]\nagent = 'fence_x'\ntimeout = 0", "must be above 0"),
        ("[fencing.beta]\nagent = 'fence_x'\ntimeout = inf", "must be above 0"),
        ("[fencing.beta]\nagent = 'fence_x'\ntimeout = true", "must be above 0"),
        ("[fencing.beta]\nagent = 'fence_x'\noptions = 1", "must be a table"),
        ("[fencing.beta]\nagent = 'fence_x'\n[fencing.beta.options]\nport = 3", "must be text"),
        ("[fencing.beta]\nagent = 'fence_x'\n[fencing.beta.options]\naction = 'on'", "is set by remus-agent"),
        ("[fencing.beta]\nagent = 'fence_x'\n[fencing.beta.options]\nip = 'a\\u000ab=c'", None),
        ("[fencing.beta]\nagent = 'fence_x'\n[fencing.beta.options]\npasswd = 'x'", "a password does not belong here"),
        ("[fencing.beta]\nagent = 'fence_x'\n[fencing.beta.options]\n'a b' = 'x'", "not the name of an option"),
    ],
)
def test_what_is_refused(text: str, message: str | None) -> None:
    base = BASE if text.startswith("[") else text + BASE
    after = text.replace("'a\\u000ab=c'", '"a\\nb=c"') if text.startswith("[") else ""
    with pytest.raises(ConfigError, match=message or "cannot be printed"):
        config.parse(base + after)


def test_a_misspelt_key_gets_a_proposal() -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(BASE + "[fencing.beta]\nagnet = 'fence_x'")
    assert caught.value.hint == "did you mean 'agent'?"


def secrets(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_secrets_are_lines_and_may_hold_anything_after_the_first_equals_sign(tmp_path: Path) -> None:
    path = secrets(tmp_path / "s", "# of beta\n\npassword= a=b #c\nlogin=remus\n")
    assert read_secrets(path) == {"password": " a=b #c", "login": "remus"}
    assert read_secrets(None) == {}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_secrets_that_others_can_reach_are_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="may be read or changed by others") as caught:
        read_secrets(secrets(tmp_path / "s", "password=x\n", mode))
    assert caught.value.hint == f"chmod 0600 {tmp_path / 's'}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_secrets_of_another_user_are_refused(tmp_path: Path) -> None:
    path = secrets(tmp_path / "s", "password=x\n")
    os.chown(path, 12345, -1)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        read_secrets(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("password\n", "line 1: not key=value"),
        ("a=1\na=2\n", "line 2: a is there twice"),
        ("action=on\n", "line 1: action is set"),
        ("pass word=hush\n", "line 1: not key=value"),
        ("password=hu\tsh\n", "cannot be printed"),
    ],
)
def test_wrong_secrets_are_named_by_their_line_and_never_shown(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_secrets(secrets(tmp_path / "s", text))
    assert "hu" not in str(caught.value).replace("chmod", "")


def test_a_configuration_whose_secrets_cannot_be_used_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(BASE + f'[fencing.beta]\nagent = "fence_x"\nsecrets = "{tmp_path / "s"}"\n')
    with pytest.raises(ConfigError, match=r"fencing\.beta\.secrets: .* cannot be read: No such file"):
        config.load(path)
    secrets(tmp_path / "s", "password=x\n", 0o644)
    with pytest.raises(ConfigError, match="may be read or changed by others"):
        config.load(path)
    (tmp_path / "s").chmod(0o600)
    assert config.load(path).fencing["beta"].secrets == tmp_path / "s"
    assert fence_config.read_secrets(tmp_path / "s") == {"password": "x"}
