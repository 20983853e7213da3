"""Certificates are made once, renewed in time, and never leave their keys open."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest
from cryptography import x509

from clary.protocol.certificate_authority import Certificates, ensure_certificates

NOW = time.time()
DAY = 24 * 3600.0


def names_of(files: Certificates) -> set[str]:
    certificate = x509.load_pem_x509_certificate(files.server.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}


def contents(files: Certificates) -> tuple[bytes, bytes, bytes]:
    return files.server.read_bytes(), files.authority.read_bytes(), files.bundle.read_bytes()


def test_they_are_made_once(tmp_path: Path) -> None:
    made = contents(ensure_certificates(tmp_path / "tls", ["host.example"], NOW))
    assert contents(ensure_certificates(tmp_path / "tls", ["host.example"], NOW + DAY)) == made


def test_they_cover_this_machine_and_the_names_of_aws(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, ["host.example", "192.0.2.7", "0.0.0.0", "::"], NOW)
    names = names_of(files)
    assert {"localhost", "127.0.0.1", "::1", "host.example", "192.0.2.7"} <= names
    assert {"*.amazonaws.com", "*.us-east-1.amazonaws.com", "*.sagemaker.eu-west-1.amazonaws.com"} <= names
    assert not {"0.0.0.0", "::"} & names


def test_another_host_gets_another_certificate_of_the_same_authority(tmp_path: Path) -> None:
    server, authority, bundle = contents(ensure_certificates(tmp_path, ["one.example"], NOW))
    files = ensure_certificates(tmp_path, ["two.example"], NOW)
    assert "two.example" in names_of(files)
    assert files.server.read_bytes() != server
    assert contents(files)[1:] == (authority, bundle)


def test_they_are_renewed_long_before_they_end(tmp_path: Path) -> None:
    first = contents(ensure_certificates(tmp_path, [], NOW))
    second = contents(ensure_certificates(tmp_path, [], NOW + 360 * DAY))
    assert second[0] != first[0]
    assert second[1] == first[1]
    third = contents(ensure_certificates(tmp_path, [], NOW + 2900 * DAY))
    assert third[1] != second[1]
    assert third[1] in third[2]
    server = x509.load_pem_x509_certificate(third[0])
    server.verify_directly_issued_by(x509.load_pem_x509_certificate(third[1]))


@pytest.mark.parametrize("name", ["server.pem", "authority-private.pem", "authority.pem", "bundle.pem"])
@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_what_is_broken_or_missing_is_made_anew(tmp_path: Path, name: str, content: bytes | None) -> None:
    ensure_certificates(tmp_path, [], NOW)
    path = tmp_path / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    files = ensure_certificates(tmp_path, [], NOW)
    server = x509.load_pem_x509_certificate(files.server.read_bytes())
    authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
    server.verify_directly_issued_by(authority)
    assert files.authority.read_bytes() in files.bundle.read_bytes()


def test_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    ensure_certificates(tmp_path / "tls", [], NOW)
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    for path in (tmp_path / "tls").iterdir():
        secret = b"PRIVATE KEY" in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if secret else 0o644), path.name


def test_the_bundle_trusts_the_public_authorities_too(tmp_path: Path) -> None:
    bundle = ensure_certificates(tmp_path, [], NOW).bundle.read_bytes()
    assert bundle.count(b"BEGIN CERTIFICATE") > 50
