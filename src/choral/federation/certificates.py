"""TLS certificates: a private authority for one federation, and what members and the aggregator make of them.

TLS is no part of the protocol: no secret depends on it. It keeps models, names and metrics from the
network. Members trust the one authority in their own folder (`ca.pem`) and none of the machine's.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
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

from choral.errors import ParameterError, TlsError
from choral.federation.address import is_host_name
from choral.federation.files import write_whole

CA, CA_KEY = "ca.pem", "ca.key"
CERTIFICATE, KEY = "server.pem", "server.key"
CA_DAYS, SERVER_DAYS = 3650, 365
_OTHER = "take another certificate, or let `choral init --tls` make one"
WARN_DAYS = 30  # an expiry nearer than this is worth a warning
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


def names_of(certificate: bytes) -> list[str]:
    """The host names (in small letters) and addresses in a PEM certificate, as its alternative names."""
    try:
        found = _parse(certificate, "the certificate").extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return []
    except ValueError as error:
        raise ParameterError(f"the certificate cannot be read ({error})", hint=_OTHER) from error
    kinds = (x509.DNSName, x509.IPAddress)
    return [str(name.value).lower() for name in found.value if isinstance(name, kinds)]


def expires(certificate: bytes) -> datetime:
    """When a PEM certificate stops being valid (the first one of a chain)."""
    return _parse(certificate, "the certificate").not_valid_after_utc


def check_own(certificate: bytes, key: bytes, authority: bytes | None, host: str) -> None:
    """That an operator's own files go together: key, chain, host name, time.

    Raises:
        ParameterError: what does not.
    """
    chain = _parse_all(certificate, "the server certificate")
    _, private = _load(Pem(certificate, key))
    if chain[0].public_key() != private.public_key():
        raise ParameterError(
            "the server certificate and its key do not belong together",
            hint="the server's own certificate comes first in its file, then what it was issued by",
        )
    now = datetime.now(UTC)
    if chain[0].not_valid_after_utc < now:
        expired = f"the server certificate expired on {chain[0].not_valid_after_utc:%Y-%m-%d}"
        raise ParameterError(expired, hint=_OTHER)
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
    trusted = _parse_all(authority, "the authority's certificate") if authority else []
    if authority and not any(_issued(one, by) for one in chain for by in trusted):
        raise ParameterError(
            "the server certificate is not issued by the authority given",
            hint="--tls-ca names the certificate that members are to trust for it",
        )


def trust(ca: Path) -> ssl.SSLContext:
    """What a member checks the aggregator's certificate with: this authority and no other.

    Raises:
        ParameterError: not a file of certificates.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ParameterError(
            f"{ca}: not a file of PEM certificates ({error.strerror or error})",
            hint="it is the authority that this federation's `choral init --tls` made",
        ) from error
    return context


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


def _parse(pem: bytes, what: str) -> x509.Certificate:
    return _parse_all(pem, what)[0]


def _parse_all(pem: bytes, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ParameterError(
            f"{what} is not a PEM certificate", hint="it begins with -----BEGIN CERTIFICATE-----"
        ) from error


def _load(pem: Pem) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        key = load_pem_private_key(pem.key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ParameterError(
            "the private key is not PEM without a password",
            hint="`openssl pkey -in key.pem -out plain.pem` takes a password off",
        ) from error
    return _parse(pem.certificate, "the certificate"), key  # type: ignore[return-value]


def speaks_tls(host: str, port: int) -> bool:
    """Whether a TLS handshake gets anywhere at an address. Nothing is sent and nobody is trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except (OSError, ValueError):
        return False


# ----- what went wrong ------------------------------------------------------------------------

_VERIFY = {
    9: ("is not valid yet", "is this machine's clock right?"),
    10: ("has expired", "whoever runs the aggregator: `choral tls renew`, it is taken up without a restart"),
    62: ("is for another name", "the address must be one of the names given to `choral init --tls-name`"),
    64: ("is for another address", "the address must be one of the names given to `choral init --tls-name`"),
}


def explain(error: BaseException, url: str, *, own_authority: bool) -> TlsError | None:
    """What a failed connection means, if it failed at TLS."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, ssl.SSLError):
        found = found.__cause__ or found.__context__
    if isinstance(found, ssl.SSLCertVerificationError):
        what, hint = _VERIFY.get(
            found.verify_code,
            (
                "is not issued by the authority in this folder's ca.pem"
                if own_authority
                else "is not issued by an authority that this machine knows",
                "the wrong address, another federation's folder, or somebody in between"
                if own_authority
                else "a federation with an authority of its own has ca.pem in every member's folder",
            ),
        )
        return TlsError(f"the certificate at {url} {what} ({found.verify_message})", hint=hint)
    if isinstance(found, ssl.SSLError) and found.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return TlsError(
            f"what answers at {url} does not speak TLS", hint="is the address http:// and not https://?"
        )
    return None
