"""Certificates of a federation (S3): a small authority, and what it signs.

1. Keys are made where they are used. What travels is a request, signed by the key it is about.
2. A site's certificate binds its name to its three public keys: the signing key (Ed25519) is the
   certificate's own, exchange key and node key stand in it as names.
3. Certificates live for days, not years. A new one for the same keys needs no comparing of
   fingerprints; a new key does.
4. Functions only: no file is opened, and the time is passed in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydantic import TypeAdapter

from abfed.protocol.canonical import sha256_hex
from abfed.protocol.errors import IntegrityError
from abfed.protocol.schema import Name
from abfed.site.keys import SiteKeys

CLOCKS_DIFFER = timedelta(minutes=5)  # a certificate holds from a little before it was made
_EXCHANGE, _NODE = "abfed:exchange:", "abfed:node:"
_SITE: TypeAdapter[str] = TypeAdapter(Name)  # files are named by it: a path would be one elsewhere


class Pinned(NamedTuple):
    """A site's name and public keys: what other sites pin.

    Attributes:
        site: its name.
        signing: Ed25519, 32 raw bytes.
        exchange: X25519, 32 raw bytes.
        node: the SuperNode's P-384 point, uncompressed (97 bytes).
    """

    site: str
    signing: bytes
    exchange: bytes
    node: bytes

    @property
    def fingerprint(self) -> str:
        """What two people compare by phone: 32 hex digits in groups of four."""
        parts = (self.site.encode(), self.signing, self.exchange, self.node)
        return spoken(sha256_hex(b"\0".join(parts)))


class Authority(NamedTuple):
    """A federation's authority: its private key (PEM) and its certificate (PEM)."""

    key: bytes
    certificate: bytes


def spoken(digest: str) -> str:
    """A digest for reading aloud."""
    return " ".join(digest[start : start + 4] for start in range(0, 32, 4))


def make_authority(federation: str, now: datetime, days: int, key_pem: bytes = b"") -> Authority:
    """Found an authority (ECDSA P-256), or give one a new certificate for the key it has.

    Args:
        federation: its name.
        now: the time.
        days: how long the certificate holds.
        key_pem: the authority's key; a new one is made where it is left out.
    """
    key = _load(key_pem) if key_pem else ec.generate_private_key(ec.SECP256R1())
    name = _name(f"abfed federation {federation}")
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    built = (
        _builder(name, name, now, days)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(_private_pem(key), _pem(built))


def check_authority(pem: bytes) -> None:
    """Check what somebody says is their authority's certificate, as `make_authority` writes it.

    Raises:
        IntegrityError: it isn't one certificate of an authority, signed by itself.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as cause:
        raise IntegrityError("its authority is no certificate", where="authority") from cause
    if not constraints.value.ca or pem != _pem(certificate):
        raise IntegrityError("its authority is no authority's certificate", where="authority")


def make_server_certificate(
    authority: Authority, hosts: Sequence[str], now: datetime, days: int
) -> tuple[bytes, bytes]:
    """A key and certificate (PEM) for a TLS server at these names or addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [_host(host) for host in hosts]
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    built = (
        _builder(_name(hosts[0]), issuer.subject, now, days)
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_key_of(issuer), critical=False)
        .sign(_load(authority.key), hashes.SHA256())
    )
    return _private_pem(key), _pem(built)


def make_site_request(keys: SiteKeys, node: bytes) -> bytes:
    """A site's certificate request (PEM).

    Args:
        keys: the site's keys.
        node: the public point of its SuperNode's key, uncompressed.
    """
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_name(keys.site))
        .add_extension(_keys_of(keys.exchange_key, node), critical=False)
    )
    return keys.sign_request(builder).public_bytes(serialization.Encoding.PEM)


def read_site_request(pem: bytes) -> Pinned:
    """What a request asks to be pinned, once its signature holds.

    Raises:
        IntegrityError: it isn't a request of a site, or was changed.
    """
    try:
        request = x509.load_pem_x509_csr(pem)
        holds = request.is_signature_valid
    except (ValueError, TypeError) as cause:
        raise IntegrityError("not a certificate request", where="request") from cause
    if not holds:
        raise IntegrityError("the request's signature does not hold", where="request")
    return _pinned(request)


def issue_site_certificate(authority: Authority, pem: bytes, now: datetime, days: int) -> bytes:
    """A site's certificate (PEM) for its request.

    Raises:
        IntegrityError: the request doesn't hold.
    """
    pinned = read_site_request(pem)
    request = x509.load_pem_x509_csr(pem)
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    built = (
        _builder(_name(pinned.site), issuer.subject, now, days)
        .public_key(request.public_key())
        .add_extension(_keys_of(pinned.exchange, pinned.node), critical=False)  # and nothing else
        .add_extension(_key_of(issuer), critical=False)
        .sign(_load(authority.key), hashes.SHA256())
    )
    return _pem(built)


def read_site_certificate(
    pem: bytes, authority_certificate: bytes, now: datetime, revoked: bytes = b""
) -> Pinned:
    """The keys that a site's certificate pins, if it holds now.

    Args:
        pem: the certificate.
        authority_certificate: the federation's.
        now: the time.
        revoked: the authority's revocation list (PEM); b"" where there is none.

    Raises:
        IntegrityError: another authority's, not in its time, or revoked.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        issuer = x509.load_pem_x509_certificate(authority_certificate)
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as cause:
        raise IntegrityError("not a certificate of this federation", where="certificate") from cause
    pinned = _pinned(certificate)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise IntegrityError(
            "the certificate is not valid now",
            where=pinned.site,
            why=f"it holds until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            do="renew it: `abfed provision renew` at the brand, `abfed provision admit` here",
        )
    if revoked:
        listed = x509.load_pem_x509_crl(revoked)
        public = issuer.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey) or not listed.is_signature_valid(
            public
        ):
            raise IntegrityError("the revocation list was changed", where="revoked")
        if listed.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            raise IntegrityError("the certificate was revoked", where=pinned.site)
    return pinned


def revocation_list(
    authority: Authority, certificates: Sequence[bytes], now: datetime, days: int
) -> bytes:
    """The list (PEM) that revokes these certificates."""
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now)
        .next_update(now + timedelta(days=days))
    )
    for pem in certificates:
        serial = x509.load_pem_x509_certificate(pem).serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(_load(authority.key), hashes.SHA256()).public_bytes(
        serialization.Encoding.PEM
    )


def expiry(pem: bytes) -> datetime:
    """Until when a certificate holds."""
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def node_point(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """A node's public key as `Pinned` has it."""
    return public_key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )


def node_key_from(point: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a point.

    Raises:
        IntegrityError: it is not one on P-384.
    """
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), point)
    except ValueError as cause:
        raise IntegrityError("not a node's key", where="request") from cause


def _pinned(signed: x509.CertificateSigningRequest | x509.Certificate) -> Pinned:
    where = "request" if isinstance(signed, x509.CertificateSigningRequest) else "certificate"
    names = signed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    key = signed.public_key()
    try:
        alternative = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uris = alternative.value.get_values_for_type(x509.UniformResourceIdentifier)
        site = _SITE.validate_python(names[0].value if len(names) == 1 else None)
        (exchange,) = (bytes.fromhex(u.removeprefix(_EXCHANGE)) for u in uris if _EXCHANGE in u)
        (node,) = (bytes.fromhex(u.removeprefix(_NODE)) for u in uris if _NODE in u)
    except (ValueError, x509.ExtensionNotFound) as cause:
        raise IntegrityError("it does not name a site's keys", where=where) from cause
    if not isinstance(key, Ed25519PublicKey) or len(exchange) != 32:
        raise IntegrityError("it does not name a site's keys", where=where)
    node_key_from(node)
    return Pinned(site, key.public_bytes_raw(), exchange, node)


def _keys_of(exchange: bytes, node: bytes) -> x509.SubjectAlternativeName:
    """Keys that are not the subject's own, as names."""
    names = (_EXCHANGE + exchange.hex(), _NODE + node.hex())
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(one) for one in names])


def _builder(
    subject: x509.Name, issuer: x509.Name, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_DIFFER)
        .not_valid_after(now + timedelta(days=days))
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_of(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    subject = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject.value)


def _load(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IntegrityError("not an authority's key", where="authority")
    return key


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
