from __future__ import annotations

from pathlib import Path

import pytest

from remus_agent import config, config_rules
from remus_agent.addresses import Address, parse_address
from remus_agent.config import Automatic, Tls, Witness
from remus_agent.errors import ConfigError

MINIMAL = '[host]\nname = "alpha"\n[replication]\nlisten = "10.78.0.11:7789"\n'
FULL = """
[host]
name = "alpha"
[replication]
listen = "10.78.0.11:7789"
[replication.peers]
beta = "10.78.0.12:7789"
gamma = "[fd78::13]:7790"
[timeouts]
connect = 10
suspend = 10
ack = 60
silence = 30.5
heartbeat = 2
activate = 120
[output]
limit_bytes = 67108864
[pacing]
interval_ms = 50
[paths]
state = "/srv/remus"
run = "/run/other"
"""
TLS = '[tls]\nca = "/e/ca.pem"\ncertificate = "/e/host.pem"\nkey = "/e/host.key"\n'
SECOND = """second = "10.77.0.11:7790"
[replication.peers]
beta = "10.78.0.12:7789"
[replication.second_paths]
beta = "10.77.0.12:7790"
"""
WITNESS = '[witness]\nendpoints = ["https://10.77.0.13:2379"]\n'
WITNESSED = MINIMAL + SECOND + TLS + WITNESS


def test_every_key() -> None:
    found = config.parse(FULL)
    assert found.host.name == "alpha"
    assert found.replication.listen == Address("10.78.0.11", 7789)
    assert found.replication.peers == {
        "beta": Address("10.78.0.12", 7789),
        "gamma": Address("fd78::13", 7790),
    }
    assert found.replication.peer_ips == {"10.78.0.12", "fd78::13"}
    assert found.timeouts.silence == 30.5
    assert found.timeouts.connect == 10.0
    assert found.pacing.interval_ms == 50
    assert found.paths.guests == Path("/srv/remus/guests")
    assert found.paths.journal == Path("/srv/remus/journal")
    assert found.paths.events == Path("/srv/remus/events.jsonl")
    assert found.paths.agent_socket == Path("/run/other/agent.sock")
    assert found.paths.supervisor_socket == Path("/run/other/supervisor.sock")


def test_defaults() -> None:
    found = config.parse(MINIMAL)
    assert found.timeouts.ack == 60
    assert found.output.limit_bytes == 64 << 20
    assert found.pacing.interval_ms == 100
    assert found.paths.state == Path("/var/lib/remus")
    assert found.replication.peers == {}
    assert found.tls is None


def test_tls() -> None:
    found = config.parse(MINIMAL + TLS)
    assert found.tls == Tls(Path("/e/ca.pem"), Path("/e/host.pem"), Path("/e/host.key"))


def test_witness() -> None:
    found = config.parse(
        WITNESSED + "timeout = 2\n[timeouts]\ndetect = 6\nsolo = 20\nretry = 1\n[automatic]\nreprotect = false\n"
    )
    assert found.witness == Witness(("https://10.77.0.13:2379",), 2.0)
    assert found.replication.second == Address("10.77.0.11", 7790)
    assert found.replication.second_paths == {"beta": Address("10.77.0.12", 7790)}
    assert found.replication.second_ips == {"10.77.0.12"}
    assert (found.timeouts.detect, found.timeouts.solo, found.timeouts.retry) == (6, 20, 1)
    assert found.automatic == Automatic(failover=True, solo=True, reprotect=False)


def test_a_witness_without_second_paths_never_fails_over_by_itself() -> None:
    text = MINIMAL + '[replication.peers]\nbeta = "10.78.0.12:7789"\n' + TLS + WITNESS
    with pytest.raises(ConfigError, match="automatic failover needs a second path to beta"):
        config.parse(text)
    assert config.parse(text + "[automatic]\nfailover = false\n").witness is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + SECOND + WITNESS, r"\[witness\] needs \[tls\]"),
        (MINIMAL + SECOND + TLS + "[witness]\n", "witness.endpoints is missing"),
        (MINIMAL + SECOND + TLS + "[witness]\nendpoints = []\n", "witness.endpoints is missing"),
        (WITNESSED.replace("https", "http"), "'http://10.77.0.13:2379' is not https://HOST:PORT"),
        (WITNESSED.replace(":2379", ""), "is not https://HOST:PORT"),
        (WITNESSED.replace(":2379", ":99999"), "is not https://HOST:PORT"),
        (WITNESSED.replace(":2379", ":2379/v3"), "is not https://HOST:PORT"),
        (WITNESSED.replace('"]', '", "https://10.77.0.13:2379/"]'), "names a node twice"),
        (WITNESSED.replace('["https://10.77.0.13:2379"]', '"x"'), "witness.endpoints: expected `array`"),
        (WITNESSED + "timeout = 0\n", "witness.timeout is 0.0"),
        (WITNESSED + "[timeouts]\ndetect = 5\n", "timeouts.detect .* at least three times timeouts.heartbeat"),
        (WITNESSED + "[timeouts]\nsolo = 19\n", "timeouts.solo .* at least twice timeouts.detect"),
        (WITNESSED + "[automatic]\nfailover = 1\n", "automatic.failover: expected"),
        (WITNESSED.replace('beta = "10.77', 'gamma = "10.77'), "second_paths.gamma is of no peer"),
        (WITNESSED.replace("10.77.0.12:7790", "10.78.0.12:7789"), "same address as replication.peers.beta"),
        (WITNESSED.replace("10.77.0.11:7790", "10.78.0.11:7789"), "same address as replication.listen"),
        (WITNESSED + "[watchdog]\nseconds = 179\n", "watchdog.seconds is 179; it must be 0 .off., or at least 180"),
        (WITNESSED + "[watchdog]\nseconds = -1\n", "watchdog.seconds is -1"),
        (WITNESSED + "[watchdog]\nseconds = 86401\n", "watchdog.seconds is 86401; .* at most 86400"),
        (WITNESSED + "[watchdog]\nseconds = 180.5\n", "watchdog.seconds: expected a whole number"),
        (WITNESSED + "[watchdog]\nseconds = true\n", "watchdog.seconds: expected a whole number"),
        (WITNESSED + "[watchdog]\nsecond = 1\n", r"\[watchdog\] has no key 'second'; allowed: seconds"),
        (
            WITNESSED + "[timeouts]\ndetect = 40.1\nsolo = 90\n[watchdog]\nseconds = 240\n",
            "watchdog.seconds is 240; .* at least 241",
        ),
        (MINIMAL + "[watchdog]\nseconds = 180\n", r"watchdog.seconds needs \[witness\]"),
        (MINIMAL + "[timeouts]\nconect = 1\n", r"\[timeouts\] has no key 'conect'; allowed: ack, activate, connect"),
        (
            MINIMAL + "[time]\n",
            "no section 'time'; allowed: automatic, fencing, groups, host, http, output, pacing, paths, replication, timeouts,"
            " tls, watchdog, witness",
        ),
        (MINIMAL + "[replication.extra]\n", r"\[replication\] has no key 'extra'; allowed: listen, peers"),
        ("", "host.name is missing"),
        ("host = 1", "host must be a section"),
        ('[host]\nname = "a"\n', "replication.listen is missing"),
        (MINIMAL.replace('"alpha"', "7"), "host.name: expected text, got a whole number"),
        (MINIMAL.replace("alpha", "../a"), "'../a' is not a host name"),
        (MINIMAL.replace("10.78.0.11:7789", "beta:7789"), "replication.listen: 'beta:7789' is not an IP address"),
        (MINIMAL + '[timeouts]\nack = "1"\n', "timeouts.ack: expected a number, got text"),
        (MINIMAL + "[timeouts]\nack = true\n", "timeouts.ack: expected a number"),
        (MINIMAL + "[timeouts]\nack = 0\n", "timeouts.ack is 0.0; it must be above 0"),
        (MINIMAL + "[timeouts]\nack = -1\n", "timeouts.ack"),
        (MINIMAL + "[timeouts]\nack = nan\n", "timeouts.ack is nan"),
        (MINIMAL + "[timeouts]\nack = inf\n", "timeouts.ack is inf"),
        (MINIMAL + "[timeouts]\nack = 86401\n", "timeouts.ack"),
        (MINIMAL + "[timeouts]\nheartbeat = 20\n", "timeouts.silence .* must be at least twice"),
        (MINIMAL + "[output]\nlimit_bytes = 1\n", "output.limit_bytes is 1; it must be at least 65536"),
        (MINIMAL + "[output]\nlimit_bytes = 2147483648\n", "limit_bytes is 2147483648; .* at most 2147483647"),
        (MINIMAL + "[pacing]\ninterval_ms = -1\n", "pacing.interval_ms is -1"),
        (MINIMAL + "[pacing]\ninterval_ms = 1.5\n", "pacing.interval_ms: expected a whole number"),
        (MINIMAL + '[paths]\nstate = "lib"\n', "paths.state must be an absolute path"),
        (MINIMAL + "[paths]\nstate = 1\n", "paths.state: expected text"),
        (MINIMAL + '[tls]\nca = "/a"\ncertificate = "/b"\n', r"tls.key is missing"),
        (MINIMAL + "[tls]\n", "tls.ca is missing"),
        (MINIMAL + '[tls]\nca = "/a"\ncertificate = "b"\nkey = "/c"\n', "tls.certificate must be an absolute path"),
        (MINIMAL + '[tls]\nca = 1\ncertificate = "/b"\nkey = "/c"\n', "tls.ca: expected text"),
        (MINIMAL + '[tls]\npassword = "secret"\n', r"\[tls\] has no key 'password'; allowed: ca, certificate, key"),
        (MINIMAL + "peers = 1\n", "replication.peers must be a section"),
        (MINIMAL + "[replication.peers]\nbeta = 1\n", "replication.peers.beta: expected text"),
        (MINIMAL + '[replication.peers]\nalpha = "10.0.0.1:1"\n', "has this host itself"),
        (MINIMAL + '[replication.peers]\nbeta = "10.78.0.11:7789"\n', "the same address as replication.listen"),
        (MINIMAL + '[replication.peers]\nbeta = "0.0.0.0:7789"\n', "not the address of one host"),
        (MINIMAL + "[host]\n", "not valid TOML"),
        (MINIMAL + "[http]\n", "http.listen is missing"),
        (MINIMAL + "[http]\nlisten = 7791\n", "http.listen: expected text"),
        (MINIMAL + "[http]\nport = 7791\n", r"\[http\] has no key 'port'; allowed: listen"),
        (MINIMAL + '[http]\nlisten = "alpha:7791"\n', "http.listen: 'alpha:7791' is not an IP address"),
        (MINIMAL + '[http]\nlisten = "0.0.0.0:7791"\n', "http.listen: 0.0.0.0:7791 is not the address of one host"),
        (MINIMAL + '[http]\nlisten = "[::]:7791"\n', r"http.listen: \[::\]:7791 is not the address of one host"),
        (MINIMAL + '[http]\nlisten = "224.0.0.1:7791"\n', "http.listen: 224.0.0.1:7791 is not the address of one host"),
        (MINIMAL + '[http]\nlisten = "10.78.0.11:7789"\n', "http.listen has the same address as replication.listen"),
        (
            MINIMAL + SECOND + '[http]\nlisten = "10.77.0.11:7790"\n',
            "http.listen has the same address as replication.second",
        ),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.parse(text)


def test_the_watchdog_is_off_unless_it_has_time() -> None:
    assert config.parse(MINIMAL).watchdog.seconds == 0
    assert config.parse(MINIMAL + "[watchdog]\nseconds = 0\n").watchdog.seconds == 0
    assert config.parse(WITNESSED + "[watchdog]\nseconds = 180\n").watchdog.seconds == 180


def test_a_watchdog_that_is_too_short_is_told_why() -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(WITNESSED + "[watchdog]\nseconds = 30\n")
    assert "an agent that hangs must be restarted by systemd first (91 s and its start)" in str(caught.value.hint)
    assert "longer than timeouts.detect (10 s)" in str(caught.value.hint)


def test_systemd_restarts_an_agent_that_hangs_before_the_host_is_reset() -> None:
    """The numbers of the rule are those of the unit."""
    unit = (Path(config_rules.__file__).parent / "units/remus-agent.service").read_text()
    (watchdog, stop, restart) = (
        int(unit.split(f"\n{key}=")[1].split()[0]) for key in ("WatchdogSec", "TimeoutStopSec", "RestartSec")
    )
    assert watchdog + stop + restart == config_rules.RESTART_SECONDS
    assert "TimeoutAbortSec" not in unit, "then TimeoutStopSec would not say how long systemd waits after SIGABRT"
    assert config_rules.MIN_WATCHDOG * 2 / 3 - config_rules.RESTART_SECONDS >= 25, "for the start"


def test_the_unit_may_call_the_hypervisor() -> None:
    """What the watchdog and everything else needs: /dev/xen/privcmd and /dev/xen/hypercall."""
    unit = (Path(config_rules.__file__).parent / "units/remus-agent.service").read_text()
    settings = [line.partition("=")[::2] for line in unit.splitlines() if not line.startswith("#")]
    keys = {key for key, _ in settings}
    assert not keys & {"DevicePolicy", "DeviceAllow", "PrivateDevices", "ProtectClock", "User", "DynamicUser"}
    assert not keys & {"ProtectKernelTunables", "InaccessiblePaths", "NoNewPrivileges"}
    for key, value in settings:
        if key in ("CapabilityBoundingSet", "SystemCallFilter"):
            assert value.startswith("~"), "named is what nobody needs, not what the programs of Xen need"
            assert not set(value[1:].split()) & {"CAP_SYS_ADMIN", "CAP_SYS_RAWIO", "CAP_IPC_LOCK", "@raw-io", "@module"}


def test_a_close_key_is_suggested() -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(MINIMAL + "[timeouts]\nconect = 1\n")
    assert caught.value.hint == "did you mean 'connect'?"


@pytest.mark.parametrize(
    "text",
    ["", ":", "1.2.3.4", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:x", "1.2.3:1", "::1:5", "[::1]", "[::1]:",
     "[1.2.3.4]:5", "[fe80::1%eth0]:5", "1.2.3.4:+5", "1.2.3.4: 5", "host:5", "1.2.3.4:٥"],
)  # fmt: skip
def test_what_is_not_an_address(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_address(text)


@pytest.mark.parametrize("text", ["1.2.3.4:1", "[::1]:65535"])
def test_addresses_read_as_they_are_written(text: str) -> None:
    assert str(parse_address(text)) == text


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    with pytest.raises(ConfigError, match="does not exist"):
        config.load(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.load(path)
    path.write_text(MINIMAL + "[output]\nlimit = 1\n")
    with pytest.raises(ConfigError, match=f"{path}: .*'limit'.*limit_bytes"):
        config.load(path)
    path.write_text(MINIMAL)
    assert config.load(path).host.name == "alpha"
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path)


def test_nothing_listens_unless_asked_to() -> None:
    assert config.parse(MINIMAL).http is None
    found = config.parse(MINIMAL + '[http]\nlisten = "[fd77::11]:7791"\n')
    assert found.http == config.Http(Address("fd77::11", 7791))


def test_whose_address_it_is() -> None:
    config.check_own(config.parse(MINIMAL))
    config.check_own(config.parse(MINIMAL + '[http]\nlisten = "127.0.0.1:7791"\n'))
    with pytest.raises(ConfigError, match=r"http.listen: 192.0.2.77 is not an address of this host") as caught:
        config.check_own(config.parse(MINIMAL + '[http]\nlisten = "192.0.2.77:7791"\n'))
    assert "management network" in str(caught.value.hint)
