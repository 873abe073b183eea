"""TLS certificates, and what members and the aggregator make of them; `founding.authority` makes them.

TLS is no part of the protocol: no secret depends on it. It keeps models, names and metrics from the
network. Members trust the one authority in their own folder (`ca.pem`) and none of the machine's.
"""

from __future__ import annotations

import socket
import ssl
from datetime import datetime
from pathlib import Path

from cryptography import x509

from choral.errors import ParameterError, TlsError

CA_KEY = "ca.key"
CERTIFICATE, KEY = "server.pem", "server.key"
ANOTHER = "take another certificate, or let `choral init --tls` make one"
WARN_DAYS = 30  # an expiry nearer than this is worth a warning


def names_of(certificate: bytes) -> list[str]:
    """The host names (in small letters) and addresses in a PEM certificate, as its alternative names."""
    try:
        found = parse(certificate, "the certificate")[0].extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return []
    except ValueError as error:
        raise ParameterError(f"the certificate cannot be read ({error})", hint=ANOTHER) from error
    kinds = (x509.DNSName, x509.IPAddress)
    return [str(name.value).lower() for name in found.value if isinstance(name, kinds)]


def expires(certificate: bytes) -> datetime:
    """When a PEM certificate stops being valid (the first one of a chain)."""
    return parse(certificate, "the certificate")[0].not_valid_after_utc


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


def parse(pem: bytes, what: str) -> list[x509.Certificate]:
    """The certificates in a PEM file, called `what` in an error."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ParameterError(
            f"{what} is not a PEM certificate", hint="it begins with -----BEGIN CERTIFICATE-----"
        ) from error


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
