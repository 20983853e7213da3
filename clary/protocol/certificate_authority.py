"""The TLS certificates of a server: an authority of its own, and a certificate that clients trust by it.

Clients of AWS call some hosts by their spelled-out names (``https://sts.us-east-1.amazonaws.com``) whatever
endpoint they are given, so the certificate covers those names; it is trusted only where AWS_CA_BUNDLE points
at the bundle written here. A private key lies in the same file as its certificate, so that the two are
replaced together.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import botocore
from botocore.loaders import Loader
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
AUTHORITY_RENEWED_DAYS = 800  # before its end, so that every certificate it signs ends before it
CERTIFICATE_DAYS = 700
CERTIFICATE_RENEWED_DAYS = 350  # before its end, at a start of the server
BACKDATED_MINUTES = 60  # for clients whose clocks are late


@dataclass(frozen=True)
class Certificates:
    """Files in PEM. ``server`` holds key and certificate; ``bundle`` is what clients trust."""

    server: Path
    authority: Path
    bundle: Path


@dataclass(frozen=True)
class _Pair:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def pem(self) -> bytes:
        return (
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + self.certificate_pem()
        )

    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def ensure_certificates(folder: Path, hosts: Sequence[str], now: float) -> Certificates:
    """The certificates in ``folder``, made or renewed where they are missing, broken or near their end.

    ``hosts`` are names and addresses to cover besides loopback's and AWS's. ``now`` is in epoch seconds.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = Certificates(folder / "server.pem", folder / "authority.pem", folder / "bundle.pem")
    private = folder / "authority-private.pem"
    at = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
    names = _names(hosts)

    authority = _read(private)
    if authority is None or _days_left(authority, at) < AUTHORITY_RENEWED_DAYS:
        authority = _make_authority(at)
        _write(private, authority.pem())
    server = _read(files.server)
    if (
        server is None
        or _days_left(server, at) < CERTIFICATE_RENEWED_DAYS
        or not _covers(server.certificate, names)
        or not _signed_by(server.certificate, authority.certificate)
    ):
        _write(files.server, _make_certificate(authority, names, at).pem())
    _write_public(files.authority, authority.certificate_pem())
    public = (Path(botocore.__file__).parent / "cacert.pem").read_bytes()
    title = b"# The authority of this Clary server\n"
    _write_public(files.bundle, title + authority.certificate_pem() + b"\n" + public)
    return files


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    texts = ["localhost", "*.localhost", "127.0.0.1", "::1", *hosts, *_aws_names()]
    names: list[x509.GeneralName] = []
    for text in dict.fromkeys(text for text in texts if text not in ("0.0.0.0", "::", "")):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(text)))
        except ValueError:
            names.append(x509.DNSName(text))
    return names


def _aws_names() -> list[str]:
    """The host names of AWS that clients may spell out."""
    found = []
    for partition in Loader().load_data("partitions")["partitions"]:
        suffix = partition["outputs"]["dnsSuffix"]
        if not suffix.startswith("amazonaws.com"):
            continue  # partitions that nobody outside them can reach
        found.append(f"*.{suffix}")
        for region in partition["regions"]:
            if not region.endswith("-global"):
                found += [f"*.{region}.{suffix}", f"*.sagemaker.{region}.{suffix}"]
    return found


def _make_authority(at: datetime.datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "Clary local authority"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, os.urandom(8).hex()),
        ]
    )
    builder = _builder(name, name, key.public_key(), at, AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    return _Pair(key, builder.sign(key, hashes.SHA256()))


def _make_certificate(authority: _Pair, names: list[x509.GeneralName], at: datetime.datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    issuer = authority.certificate.subject
    builder = _builder(subject, issuer, key.public_key(), at, CERTIFICATE_DAYS)
    for extension, critical in (
        (x509.SubjectAlternativeName(names), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), False),
    ):
        builder = builder.add_extension(extension, critical=critical)
    return _Pair(key, builder.sign(authority.key, hashes.SHA256()))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    at: datetime.datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - datetime.timedelta(minutes=BACKDATED_MINUTES))
        .not_valid_after(at + datetime.timedelta(days=days))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _read(path: Path) -> _Pair | None:
    """Key and certificate in ``path``; ``None`` if they are missing or broken (and so are made anew)."""
    try:
        pem = path.read_bytes()
        key = serialization.load_pem_private_key(pem, None)
        certificate = x509.load_pem_x509_certificate(pem)
    except (OSError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        return None
    return _Pair(key, certificate)


def _days_left(pair: _Pair, at: datetime.datetime) -> float:
    return (pair.certificate.not_valid_after_utc - at) / datetime.timedelta(days=1)


def _covers(certificate: x509.Certificate, names: list[x509.GeneralName]) -> bool:
    try:
        covered = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return set(names) <= set(covered)


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is made anew
        return False
    return True


def _write_public(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        _write(path, content, mode=0o644)


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace ``path``, whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
