"""The site's CA, the certificates of its hosts, and their installation."""

from __future__ import annotations

import datetime
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.remus import certificates
from certificates import Authority
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519

from remus_agent.adapters.transport.tls import MutualTls
from remus_agent.config import Tls
from remus_agent.errors import ConfigError
from tests.modules.conftest import RunModule, load


@pytest.fixture
def make(run_module: RunModule, tmp_path: Path) -> Any:
    """make(**options) -> the result for alpha, with the CA in tmp_path/pki."""

    def made(**options: Any) -> dict[str, Any]:
        return run_module("remus_certificate", **{"directory": str(tmp_path / "pki"), "name": "alpha", **options})

    return made


def content(folder: Path) -> dict[str, bytes]:
    """All files in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def accepted(folder: str, trusted: bytes | None = None) -> bool:
    """Does an agent accept this certificate, and with these CAs?"""
    files = Tls(Path(folder, "ca.pem"), Path(folder, "host.pem"), Path(folder, "host.key"))
    if trusted is not None:
        before = files.ca.read_bytes()
        files.ca.write_bytes(trusted)
        try:
            return accepted(folder)
        finally:
            files.ca.write_bytes(before)
    try:
        MutualTls(files, Path(folder).name, {}).own()
    except ConfigError as error:
        assert "not of the CA" in str(error)
        return False
    return True


def test_a_certificate_is_made_once(make: Any, tmp_path: Path) -> None:
    pki = tmp_path / "pki"
    asked = make(check=True)
    assert (asked["changed"], asked["present"], asked["reason"], asked["days_left"]) == (True, False, "missing", None)
    assert not pki.exists()
    made = make()
    assert (made["changed"], made["present"], made["reason"]) == (True, True, "missing")
    assert set(made["diff"]["after"]) == set(asked["diff"]["after"])
    assert set(content(pki)) == {"ca.pem", "hosts/alpha/ca.pem", "hosts/alpha/host.key", "hosts/alpha/host.pem"}
    assert {path.stat().st_mode & 0o777 for path in pki.rglob("*") if path.is_file()} == {0o600}
    assert pki.stat().st_mode & 0o777 == 0o700
    assert accepted(made["folder"])
    before = content(pki)
    again = make()
    assert (again["changed"], again["reason"], again["diff"]["after"]) == (False, "", {})
    assert 364 < again["days_left"] <= 365
    assert content(pki) == before
    assert "PRIVATE" not in json.dumps([asked, made, again])


def test_hosts_of_one_site_accept_each_other(make: Any) -> None:
    alpha, beta = make(), make(name="beta")
    assert list(beta["diff"]["after"])[1:] == [
        f"{beta['folder']}/{file}" for file in ("ca.pem", "host.key", "host.pem")
    ]
    assert accepted(alpha["folder"], Path(beta["folder"], "ca.pem").read_bytes())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: Path(folder, "host.key").unlink(), "missing"),
        (lambda folder: Path(folder, "host.pem").write_text("none"), "damaged"),
        (lambda folder: Path(folder, "host.key").write_text("none"), "damaged"),
        (lambda folder: Path(folder, "host.pem").write_bytes(Path(folder, "ca.pem").read_bytes()), "damaged"),
    ],
)
def test_what_is_damaged_is_made_again(make: Any, damage: Any, reason: str) -> None:
    folder = make()["folder"]
    damage(folder)
    assert make(check=True)["reason"] == reason
    assert make()["reason"] == reason
    assert accepted(folder)
    assert make()["changed"] is False


def test_it_is_renewed_before_it_expires(make: Any) -> None:
    folder = make(days=30, renew_days=10)["folder"]
    old = Path(folder, "host.pem").read_bytes()
    assert make(days=365, renew_days=20)["changed"] is False
    renewed = make(days=365, renew_days=31)
    assert renewed["reason"] == "it expires in 30.0 days"
    assert Path(folder, "host.pem").read_bytes() != old
    assert make(renew_days=31)["changed"] is False


def test_a_certificate_of_another_name(make: Any, tmp_path: Path) -> None:
    make()
    (tmp_path / "pki/hosts/alpha").rename(tmp_path / "pki/hosts/beta")
    assert make(name="beta")["reason"] == "it has another name"


def test_addresses_are_part_of_it(make: Any) -> None:
    folder = make()["folder"]
    made = make(addresses=["10.77.0.13", "fd77::13"])
    assert made["reason"] == "it has other addresses"
    assert make(addresses=["fd77:0::13", "10.77.0.13"])["changed"] is False
    found = x509.load_pem_x509_certificate(Path(folder, "host.pem").read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["alpha"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.77.0.13", "fd77::13"]
    assert accepted(folder)
    assert make()["reason"] == "it has other addresses"


def test_keys_that_others_can_read(make: Any, tmp_path: Path) -> None:
    make()
    ca = tmp_path / "pki/ca.pem"
    ca.chmod(0o644)
    before = ca.read_bytes()
    assert make()["diff"]["before"] == {str(ca): "others can read it"}
    assert (ca.stat().st_mode & 0o777, ca.read_bytes()) == (0o600, before)


def test_a_ca_is_replaced_without_a_moment_of_distrust(make: Any) -> None:
    hosts = ("alpha", "beta")
    folders = [make(name=name)["folder"] for name in hosts]

    def trusted() -> list[bytes]:
        return [Path(folder, "ca.pem").read_bytes() for folder in folders]

    def all_accept_all() -> bool:
        return all(accepted(folder, ca) for folder in folders for ca in trusted())

    for rotation, reason in (("prepare", ""), ("switch", "signed by another CA"), ("finish", "")):
        assert make(rotation=rotation, check=True)["changed"] is True
        for name in hosts:
            assert make(name=name, rotation=rotation)["reason"] == reason
            assert all_accept_all(), f"{rotation}, only {name} was done"
        assert make(rotation=rotation)["changed"] is False
        assert make()["changed"] is False
    assert len(x509.load_pem_x509_certificates(trusted()[0])) == 1


def test_a_switch_that_was_cut_short(make: Any, tmp_path: Path) -> None:
    make()
    make(rotation="prepare")
    upcoming = (tmp_path / "pki/next.pem").read_bytes()
    make(rotation="switch")
    (tmp_path / "pki/next.pem").write_bytes(upcoming)
    assert make(rotation="switch")["diff"]["after"] == {str(tmp_path / "pki/next.pem"): "absent"}
    assert len(x509.load_pem_x509_certificates((tmp_path / "pki/hosts/alpha/ca.pem").read_bytes())) == 2


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["finish"], "no CA in .* to replace"),
        ([None, "switch"], "no CA to switch to. Next: prepare it"),
        ([None, "prepare", "finish"], "prepared CA is not in use. Next: switch"),
        ([None, "prepare", "switch", "prepare"], "previous.pem is there. Next: finish it first"),
    ],
)
def test_steps_in_a_wrong_order(make: Any, steps: list[str | None], message: str) -> None:
    for step in steps[:-1]:
        assert "failed" not in make(rotation=step or "none")
    refused = make(rotation=steps[-1])
    assert refused["failed"]
    assert re.search(message, refused["msg"])


def test_a_ca_near_its_end_warns_and_does_not_renew_for_ever(make: Any, tmp_path: Path) -> None:
    make(ca_days=30, days=20, renew_days=10)
    first = make(renew_days=40, days=50)
    assert first["changed"] is False
    upcoming = make(renew_days=40, days=50, rotation="prepare")
    assert upcoming["changed"] is True


def test_a_ca_that_has_expired(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(ca_days=30, days=20, renew_days=10)
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=31)
    monkeypatch.setattr(certificates, "now", lambda: later)
    site = load("remus_certificate").Site(str(tmp_path / "pki"))
    with pytest.raises(certificates.CertificateError, match=r"The CA expired on .* Next: move"):
        site.plan({"rotation": "none", "ca_days": 30})


def ca_with_an_ed25519_key() -> str:
    """As somebody brings his own."""
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "ours")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=3650))
    return (certificates.pem_of(builder.sign(key, None)) + certificates.pem_of_key(key)).decode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("none", "is not a certificate with its key"),
        (None, "has no key"),
        ("other", "the key in .* is not that of its certificate"),
        ("ed25519", "the key in .* is neither of RSA nor of ECDSA. State left: nothing was changed. Next: "),
    ],
)
def test_a_ca_that_is_of_no_use(make: Any, tmp_path: Path, text: str | None, message: str) -> None:
    make()
    ca = tmp_path / "pki/ca.pem"
    certificate = Path(tmp_path / "pki/hosts/alpha/ca.pem").read_text()
    key = Path(tmp_path / "pki/hosts/alpha/host.key").read_text()
    texts = {"none": "none", None: certificate, "other": certificate + key, "ed25519": ca_with_an_ed25519_key()}
    ca.write_text(texts[text])
    before = content(tmp_path / "pki")
    refused = make()
    assert refused["failed"]
    assert re.search(message, refused["msg"])
    assert "PRIVATE" not in refused["msg"]
    assert content(tmp_path / "pki") == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "../alpha"}, "is not a host name"),
        ({"addresses": ["gamma"]}, "'gamma' is not an IP address. Next: see remus_pki_addresses"),
        ({"renew_days": 365}, "each run would make new certificates"),
        ({"ca_days": 10}, "each run would make new certificates"),
    ],
)
def test_options_that_make_no_sense(make: Any, options: dict[str, Any], message: str) -> None:
    assert message in make(**options)["msg"]


def test_without_cryptography(run_module: RunModule, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.delitem(sys.modules, certificates.__name__)  # so that it is read again
    assert "cryptography" in run_module("remus_certificate", directory=str(tmp_path), name="alpha")["msg"]


# Installation


@pytest.fixture
def install(run_module: RunModule, tmp_path: Path) -> Any:
    """install(files, **options) -> the result, with the host's folder tmp_path/etc."""

    def installed(files: Tls, **options: Any) -> dict[str, Any]:
        given = {"ca": files.ca, "certificate": files.certificate, "key": files.key}
        texts = {name: path.read_text().rstrip() for name, path in given.items()}  # as lookups strip it
        return run_module("remus_tls_files", **{"directory": str(tmp_path / "etc"), **texts, **options})

    return installed


def test_files_are_installed_once(install: Any, tmp_path: Path) -> None:
    files, etc = Authority(tmp_path).issue("alpha"), tmp_path / "etc"
    assert install(files, check=True)["written"] == ["ca.pem", "host.key", "host.pem"]
    assert not etc.exists()
    result = install(files)
    assert result["changed"] is True
    assert "PRIVATE" not in json.dumps(result)
    assert {path.name: path.stat().st_mode & 0o777 for path in etc.iterdir()} == {
        "ca.pem": 0o644,
        "host.key": 0o600,
        "host.pem": 0o644,
    }
    MutualTls(Tls(etc / "ca.pem", etc / "host.pem", etc / "host.key"), "alpha", {}).own()
    assert install(files)["changed"] is False


def test_only_what_differs_is_replaced(install: Any, tmp_path: Path) -> None:
    site = Authority(tmp_path)
    install(site.issue("alpha"))
    inode = (tmp_path / "etc/ca.pem").stat().st_ino
    result = install(site.issue("alpha"))
    assert result["written"] == ["host.key", "host.pem"]
    assert result["diff"]["after"]["host.key"] == "a key, mode 0600 (another one)"
    assert (tmp_path / "etc/ca.pem").stat().st_ino == inode
    (tmp_path / "etc/host.key").chmod(0o644)
    files = Tls(*(tmp_path / "alpha" / name for name in ("ca.pem", "host.pem", "host.key")))
    assert install(files)["diff"]["before"] == {"host.key": "a key, mode 0644"}
    assert not list((tmp_path / "etc").glob("*.new"))


@pytest.mark.parametrize("option", ["ca", "certificate", "key"])
def test_what_is_of_no_use_is_not_installed(install: Any, tmp_path: Path, option: str) -> None:
    files = Authority(tmp_path).issue("alpha")
    install(files)
    before = content(tmp_path / "etc")
    assert f"{option} is not in PEM" in install(files, **{option: "none"})["msg"]
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    assert "ca has no certificate" in install(files, ca=broken)["msg"]
    assert content(tmp_path / "etc") == before


def test_a_folder_that_cannot_be_made_leaves_everything(make: Any, install: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = install(Authority(tmp_path).issue("alpha"), directory=str(tmp_path / "file/etc"))["msg"]
    assert "The certificate was not installed: " in said
    assert "State left: each file is as before, or new and whole" in said
    assert "The certificate of alpha was not made: " in make(directory=str(tmp_path / "file/pki"))["msg"]


def test_the_key_is_never_logged() -> None:
    text = (Path(__file__).resolve().parents[2] / "library/remus_tls_files.py").read_text()
    assert '"key": {"type": "str", "required": True, "no_log": True}' in text
