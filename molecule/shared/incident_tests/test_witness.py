"""After site.yml with a witness: what the roles remus_witness and remus_pki promise of its machine and of the hosts."""

import pytest
import testinfra
from pair.hosts import HOSTS, ssh_config

pytestmark = pytest.mark.timeout(3600)

ADDRESS = "10.77.0.13"
EXPOSURE = 30
"""Tenths of what `systemd-analyze security` counts, at most."""
CERTIFICATES = {"ca.pem": 0o644, "host.pem": 0o644, "host.key": 0o600}


def reach(name):
    """A testinfra host of the lab."""
    return testinfra.get_host(f"ssh://{name}", ssh_config=str(ssh_config()))


@pytest.fixture(scope="module")
def gamma():
    """The witness's machine."""
    return reach("gamma")


@pytest.mark.parametrize("name", [*HOSTS, "gamma"])
def test_keys_are_readable_by_root_alone(name):
    host = reach(name)
    for file, mode in CERTIFICATES.items():
        found = host.file(f"/etc/remus/tls/{file}")
        assert (found.user, found.group, found.mode) == ("root", "root", mode), file


@pytest.mark.parametrize("name", HOSTS)
def test_agents_have_a_certificate_that_is_accepted(name):
    said = reach(name).run("remusctl selftest").stdout
    assert "witness" in said
    assert "FAIL" not in said, said


def test_etcd_runs_and_starts_at_boot(gamma):
    assert gamma.service("etcd").is_running
    assert gamma.service("etcd").is_enabled


def test_it_listens_at_one_address_only(gamma):
    for port in (2379, 2380):
        listeners = gamma.check_output(f"ss -Hltn sport = :{port}").splitlines()
        assert [line.split()[3] for line in listeners] == [f"{ADDRESS}:{port}"]


def test_it_takes_in_nobody_without_a_certificate(gamma):
    ask = f"ETCDCTL_API=3 etcdctl --endpoints=https://{ADDRESS}:2379 --cacert=/etc/remus/tls/ca.pem"
    assert gamma.run(f"{ask} --cert=/etc/remus/tls/host.pem --key=/etc/remus/tls/host.key get --prefix /remus/").rc == 0
    assert gamma.run(f"{ask} get --prefix /remus/").rc != 0


def test_its_records_are_closed_to_others(gamma):
    folder = gamma.file("/var/lib/etcd/remus")
    assert (folder.user, folder.mode) == ("etcd", 0o700)
    assert not gamma.file("/var/lib/etcd/default/member").exists, (
        "Debian's own database, which everybody could write to"
    )


def test_it_runs_with_the_settings_and_certificates_that_are_there(gamma):
    pid = gamma.check_output("systemctl show -P MainPID etcd.service")
    given = set(gamma.file(f"/proc/{pid}/environ").content_string.split("\0"))
    lines = gamma.file("/etc/default/etcd").content_string.splitlines()
    assert {line for line in lines if line.startswith("ETCD_")} <= given
    sums = [gamma.file(f"/etc/remus/tls/{file}").sha256sum for file in ("ca.pem", "host.pem")]
    assert f"REMUS_CERTIFICATES={','.join(sums)}" in given


def test_it_is_exposed_no_more_than_it_has_to_be(gamma):
    done = gamma.run(f"systemd-analyze security --no-pager --threshold={EXPOSURE} etcd.service")
    assert done.rc == 0, "\n".join(line for line in done.stdout.splitlines() if not line.startswith("✓"))
