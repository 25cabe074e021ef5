# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""A site's CA, the certificates that it issues to hosts, and what is wrong with one of these.

For the controller: it needs `cryptography`, which ansible-core needs as well."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

from ansible.module_utils.remus import files

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    x509 = None

SKEW = datetime.timedelta(days=1)  # clocks of hosts may be behind the controller's


class CertificateError(Exception):
    """It could not be made; the message says what is left and what to do next."""


def usable():
    """Is `cryptography` there? Without it nothing else here works."""
    return x509 is not None


def now():
    """This moment."""
    return datetime.datetime.now(datetime.UTC)


def days_until(certificate):
    """Days until it expires."""
    return round((certificate.not_valid_after_utc - now()).total_seconds() / 86400, 1)


def pem_of_key(key):
    """A private key as file."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def pem_of(certificate):
    """A certificate as file."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def public(key):
    """A public key in a form that can be compared."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


class Authority:
    """A CA: its certificate and key, and the file with both, so that one is never there without the other."""

    def __init__(self, certificate, key, content):
        self.certificate = certificate
        self.key = key
        self.content = content

    @classmethod
    def make(cls, days):
        """A new one. Its name has the date, its certificates name its key: two CAs are never mixed up."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Remus for Xen CA {now():%Y-%m-%dT%H:%M:%SZ}")])
        builder = _builder(subject, subject, key.public_key(), now() + datetime.timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(ca=True), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        certificate = builder.sign(key, hashes.SHA256())
        return cls(certificate, key, pem_of(certificate) + pem_of_key(key))

    @classmethod
    def load(cls, path):
        """The one in a file, or None where there is none."""
        content = files.read(path)
        if content is None:
            return None
        try:
            certificate = x509.load_pem_x509_certificate(content)
            start = re.search(rb"^-----BEGIN [A-Z ]*PRIVATE KEY-----", content, re.MULTILINE)
            if start is None:
                raise CertificateError(f"{path} has no key. State left: nothing was changed. Next: append it")
            key = serialization.load_pem_private_key(content[start.start() :], password=None)
        except (TypeError, ValueError) as failure:
            raise CertificateError(
                f"{path} is not a certificate with its key, without password. State left: nothing was changed. Next: restore it"
            ) from failure
        if public(certificate.public_key()) != public(key.public_key()):
            raise CertificateError(
                f"the key in {path} is not that of its certificate. State left: nothing was changed. Next: restore both"
            )
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise CertificateError(
                f"the key in {path} is neither of RSA nor of ECDSA. State left: nothing was changed. "
                "Next: use a CA with a key of one of these"
            )
        return cls(certificate, key, content)

    def issue(self, name, addresses, days):
        """(certificate, key) for a host."""
        key = ec.generate_private_key(ec.SECP256R1())
        ends = min(now() + datetime.timedelta(days=days), self.certificate.not_valid_after_utc)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, self.certificate.subject, key.public_key(), ends)
        names = [x509.DNSName(name), *(x509.IPAddress(address) for address in addresses)]
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        for extension, critical in (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(ca=False), True),
            (x509.ExtendedKeyUsage(usages), False),
            (x509.SubjectAlternativeName(names), False),
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self.key, hashes.SHA256()), key


def _builder(subject, issuer, key, ends):
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - SKEW)
        .not_valid_after(ends)
    )


def _usage(ca):
    unused = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **unused)


def other_names(names, name, addresses):
    """What a subjectAltName does not say as it should, or None."""
    if names.get_values_for_type(x509.DNSName) != [name]:
        return "it has another name"
    if set(names.get_values_for_type(x509.IPAddress)) != set(addresses):
        return "it has other addresses"
    return None


def reason_to_issue(folder, name, addresses, authority, renew_days):
    """(why a host needs a new certificate or "", days that the present one has left or None)."""
    certificate, key = files.read(Path(folder, "host.pem")), files.read(Path(folder, "host.key"))
    if certificate is None or key is None:
        return "missing", None
    try:
        found = x509.load_pem_x509_certificate(certificate)
        fits = public(found.public_key()) == public(serialization.load_pem_private_key(key, password=None).public_key())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (TypeError, ValueError, x509.ExtensionNotFound):
        return "damaged", None
    left = days_until(found)
    if not fits:
        return "damaged", left
    if (other := other_names(names, name, addresses)) is not None:
        return other, left
    try:
        found.verify_directly_issued_by(authority.certificate)
    except (InvalidSignature, TypeError, ValueError):
        return "signed by another CA", left
    return (f"it expires in {left} days" if left < renew_days else ""), left


def describe(path, content):
    """What `--diff` says of a file: its certificates, of a key nothing but that it is there."""
    if content is None:
        return "absent"
    if path.endswith(".key"):
        return "a key"
    try:
        found = x509.load_pem_x509_certificates(content)
    except ValueError:
        return "damaged"
    return [f"{each.subject.rfc4514_string()} until {each.not_valid_after_utc:%Y-%m-%d}" for each in found]
