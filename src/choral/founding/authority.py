"""A federation's own certificate authority and what it issues; and an operator's own certificate, looked at.

Whoever makes a federation needs this, and `choral tls renew`. What members and the aggregator make of the
files is in `federation.certificates`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from choral.binding.certificates import ANOTHER, CA_KEY, names_of, parse
from choral.disk import write_whole
from choral.errors import ParameterError
from choral.federation.address import is_host_name
from choral.federation.enrolment import CA

CA_DAYS, SERVER_DAYS = 3650, 365
_BACKDATED = timedelta(hours=1)  # for clocks that are a little behind


@dataclass(frozen=True)
class Pem:
    """A certificate, with what it was issued by appended, and its private key, both as PEM."""

    certificate: bytes
    key: bytes

    def save(self, folder: Path, certificate: str, key: str) -> None:
        """Write both; each file is replaced whole, the key is readable by its owner only."""
        write_whole(folder / key, self.key, mode=0o600)
        write_whole(folder / certificate, self.certificate)


@dataclass(frozen=True)
class Tls:
    """What `choral init` lays down: the server's certificate, and whom members trust for it.

    Attributes:
        authority: PEM of the authority; None for those that every machine knows.
        authority_key: None if it is somebody else's.
    """

    server: Pem
    authority: bytes | None = None
    authority_key: bytes | None = None


def private_tls(federation: str, names: Sequence[str]) -> Tls:
    """An authority of the federation's own, and a server certificate for `names`."""
    authority = new_authority(federation)
    return Tls(new_server(authority, names), authority.certificate, authority.key)


def own_tls(certificate: Path, key: Path, authority: Path | None, host: str) -> Tls:
    """The operator's own certificate for `host`.

    Raises:
        ParameterError: files that cannot be read or do not go together.
    """
    try:
        server = Pem(certificate.read_bytes(), key.read_bytes())
        trusted = authority.read_bytes() if authority else None
    except OSError as error:
        raise ParameterError(
            f"{error.filename}: cannot be read ({error.strerror})",
            hint="--tls-cert, --tls-key and --tls-ca are files in PEM",
        ) from error
    check_own(server.certificate, server.key, trusted, host)
    return Tls(server, trusted)


def new_authority(federation: str, *, now: datetime | None = None, days: int = CA_DAYS) -> Pem:
    """A private certificate authority that can issue for servers only, and no further authorities."""
    now = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Choral authority of {federation}"[:64])])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(name, name, key.public_key(), now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pem(certificate.public_bytes(Encoding.PEM), _private(key))


def new_server(
    authority: Pem, names: Sequence[str], *, now: datetime | None = None, days: int = SERVER_DAYS
) -> Pem:
    """A server certificate for `names`, host names and IP addresses, issued by `authority`.

    Raises:
        ParameterError: no name, one that cannot stand in a certificate, or an authority that is none.
    """
    now = now or datetime.now(UTC)
    if not names:
        raise ParameterError("a server certificate needs a name", hint="--tls-name aggregator.example")
    issuer, issuer_key = _load(authority)
    described = x509.SubjectAlternativeName(list(dict.fromkeys(map(_name, names))))
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    until = min(now + timedelta(days=days), issuer.not_valid_after_utc)
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    certificate = (
        _builder(subject, issuer.subject, key.public_key(), now, until)
        .add_extension(described, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issued_by, critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return Pem(certificate.public_bytes(Encoding.PEM), _private(key))


def load_authority(folder: Path) -> Pem:
    """`ca.pem` and `ca.key` of the provisioning folder.

    Raises:
        ParameterError: one of them is not there.
    """
    try:
        return Pem((folder / CA).read_bytes(), (folder / CA_KEY).read_bytes())
    except OSError as error:
        raise ParameterError(
            f"{error.filename}: cannot be read ({error.strerror})",
            hint="`choral init --tls` keeps the authority's key in its folder ca; bring it back from where"
            " it was moved to",
        ) from error


def check_own(certificate: bytes, key: bytes, authority: bytes | None, host: str) -> None:
    """That an operator's own files go together: key, chain, host name, time.

    Raises:
        ParameterError: what does not.
    """
    chain = parse(certificate, "the server certificate")
    _, private = _load(Pem(certificate, key))
    if chain[0].public_key() != private.public_key():
        raise ParameterError(
            "the server certificate and its key do not belong together",
            hint="the server's own certificate comes first in its file, then what it was issued by",
        )
    now = datetime.now(UTC)
    if chain[0].not_valid_after_utc < now:
        expired = f"the server certificate expired on {chain[0].not_valid_after_utc:%Y-%m-%d}"
        raise ParameterError(expired, hint=ANOTHER)
    if chain[0].not_valid_before_utc > now:
        early = (
            f"the server certificate is not valid before {chain[0].not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        )
        raise ParameterError(early, hint="is this machine's clock right?")
    names = names_of(certificate)
    if not names:
        raise ParameterError(
            "the server certificate has no alternative names (subjectAltName), and members look nowhere else",
            hint=f"have it made with the alternative name {host}: a common name alone is not looked at",
        )
    if not _covers(names, host):
        raise ParameterError(
            f"the server certificate is for {', '.join(names)}, not for {host}",
            hint="members compare the name in --url with those in the certificate",
        )
    trusted = parse(authority, "the authority's certificate") if authority else []
    if authority and not any(_issued(one, by) for one in chain for by in trusted):
        raise ParameterError(
            "the server certificate is not issued by the authority given",
            hint="--tls-ca names the certificate that members are to trust for it",
        )


# ----- in the way of x509 ---------------------------------------------------------------------


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, until) - _BACKDATED)
        .not_valid_after(until)
    )


def _usage(**used: bool) -> x509.KeyUsage:
    kinds = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{kind: used.get(kind, False) for kind in kinds})


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    if not is_host_name(text.removeprefix("*.")):
        raise ParameterError(
            f"found {text!r:.80}, expected a host name or an IP address",
            hint="--tls-name aggregator.example,10.0.0.8",
        )
    return x509.DNSName((text.encode("idna").decode() if not text.isascii() else text).lower())


def _covers(names: Sequence[str], host: str) -> bool:
    """Whether TLS takes a certificate with `names`, in small letters, for `host`."""
    try:
        return str(ipaddress.ip_address(host)) in names
    except ValueError:
        pass
    plain = (host.encode("idna").decode() if not host.isascii() else host).lower().removesuffix(".")
    parent = plain.partition(".")[2]
    return plain in names or (bool(parent) and f"*.{parent}" in names)


def _issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _load(pem: Pem) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        key = load_pem_private_key(pem.key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ParameterError(
            "the private key is not PEM without a password",
            hint="`openssl pkey -in key.pem -out plain.pem` takes a password off",
        ) from error
    return parse(pem.certificate, "the certificate")[0], key  # type: ignore[return-value]
