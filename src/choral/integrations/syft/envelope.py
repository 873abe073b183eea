"""Envelopes of Syft Crypto, the end-to-end encryption under PySyft 0.10 (PROTOCOL §3.4).

The package `syft-crypto-python` is an extra, pinned exactly. It is handed keys and bytes and gives bytes
back: it opens no file and no connection. It draws the randomness of an envelope from the operating
system by itself, so envelopes cannot be replayed from a seed; keys can.

An envelope names its sender and recipient in the clear and is signed by the sender. It binds nothing
else: no associated data, no round, and the same envelope opens as often as it comes. Whoever needs more
puts it into the plaintext.
"""

from __future__ import annotations

import base64
import functools
import importlib.metadata
import itertools
import json
from collections.abc import Mapping
from typing import Any

from choral.errors import IdentityError, ParameterError, PeerError
from choral.federation.enrolment import BUNDLE_BYTES
from choral.primitives.entropy import RandomBytes

VERSION = "0.1.2b4"
_HEADER = 4 + 1 + 4 + 4096  # magic, version, length of the prelude, prelude with zeros after it
OVERHEAD_BYTES = _HEADER + 2 + 64 + 16  # length of the signature, signature, tag
"""An envelope is this much longer than its plaintext."""

_DID = "did:syft:x"  # the name in a DID document is not signed; ours stand in the federation file


@functools.cache
def _syft() -> Any:
    try:
        import syft_crypto_python  # noqa: PLC0415  (an extra)

        found = importlib.metadata.version("syft-crypto-python")
    except ImportError as error:
        raise ParameterError(
            "this federation seals with Syft Crypto, and that is not installed here",
            hint='pip install "choral[syft]"',
        ) from error
    if found != VERSION:
        raise ParameterError(
            f"found Syft Crypto {found}, expected {VERSION}: envelopes of other versions may differ",
            hint=f'pip install "choral[syft]" installs syft-crypto-python=={VERSION}',
        )
    return syft_crypto_python


class EnvelopeKey:
    """One participant's long-term Syft keys. Its repr shows nothing."""

    def __init__(self, keys: Any) -> None:
        self._keys = keys

    def __repr__(self) -> str:
        return "EnvelopeKey(…)"

    @classmethod
    def generate(cls, random: RandomBytes) -> EnvelopeKey:
        """Fresh keys from 32 bytes of `random`, by Syft's recovery key."""
        return cls(_syft().SyftRecoveryKey.from_hex_string(random(32).hex()).derive_keys())

    @property
    def public(self) -> bytes:
        """The public bundle, 224 bytes: identity key, DH key and its signature, prekey and its signature."""
        document = self._keys.to_public_bundle().to_did_document(_DID)
        identity = document["verificationMethod"][0]["publicKeyJwk"]
        dh, prekey = (entry["publicKeyJwk"] for entry in document["keyAgreement"])
        fields = (identity["x"], dh["x"], dh["signature"], prekey["x"], prekey["signature"])
        return b"".join(map(_unbase64, fields))

    @property
    def private_bytes(self) -> bytes:
        """The secret keys as Syft's JSON (JWKS), for whoever keeps them."""
        return json.dumps(self._keys.to_jwks()).encode()

    @classmethod
    def from_private_bytes(cls, content: bytes) -> EnvelopeKey:
        """What `private_bytes` gave.

        Raises:
            IdentityError: not Syft keys.
        """
        try:
            return cls(_syft().SyftPrivateKeys.from_jwks(json.loads(content)))
        except ValueError as error:
            raise IdentityError(f"not the private keys of Syft Crypto ({error})") from error


class Envelopes:
    """What one participant can seal to the others, and open from them.

    Args:
        me: this participant's name, which envelopes carry in the clear.
        bundles: pinned public bundles by name, 224 bytes each, its own among them.

    Raises:
        IdentityError: a bundle that is not one, or `key` is not the one pinned for `me`.
        ParameterError: Syft Crypto is not installed, or in another version.
    """

    def __init__(self, me: str, key: EnvelopeKey, bundles: Mapping[str, bytes]) -> None:
        self._syft = _syft()
        self._me = me
        self._keys = key._keys
        if bundles.get(me) != key.public:
            raise IdentityError(
                f"the Syft keys in this folder are not those pinned for {me}",
                hint="key and federation file belong to different federations, or one of them was replaced",
            )
        self._bundles = {name: self._parsed(name, data) for name, data in bundles.items()}

    def _parsed(self, name: str, data: bytes) -> Any:
        try:
            bundle = self._syft.SyftPublicKeyBundle.from_did_document(_document(data))
            if bundle.verify_signatures():
                return bundle
            reason = "its signatures are not good"
        except ValueError as error:
            reason = str(error)
        raise IdentityError(f"the pinned Syft bundle of {name} cannot be used: {reason}")

    def seal(self, recipient: str, plaintext: bytes) -> bytes:
        """An envelope to one recipient, `OVERHEAD_BYTES` longer than `plaintext`."""
        to = self._syft.EncryptionRecipient(recipient, self._bundles[recipient])
        envelope: bytes = self._syft.encrypt_message(self._me, self._keys, [to], plaintext)
        return envelope

    def open(self, sender: str, envelope: bytes) -> bytes:
        """The plaintext of an envelope that `sender` made for this participant. Opens replays as well.

        Raises:
            PeerError: damaged, not made by `sender` with its pinned key, or for somebody else.
        """
        bundle = self._bundles[sender]
        try:
            parsed = self._syft.parse_envelope(envelope)
            named, recipients = parsed.prelude["sender"]["identity"], parsed.prelude["recipients"]
            addressed = [entry["identity"] for entry in recipients]
        except BaseException as error:
            raise PeerError(f"no envelope of Syft Crypto, or damaged ({_said(error)})") from error
        if named != sender:
            raise PeerError(f"an envelope that was made by {named!r:.70}")
        if addressed != [self._me]:
            raise PeerError(f"an envelope for {', '.join(map(str, addressed))!r:.200}, not for {self._me}")
        # the room after the prelude is not signed: Syft fills it with zeros, so nothing else is taken
        end = _HEADER - 4096 + len(parsed.prelude_bytes)
        if len(envelope) != _HEADER + 66 + len(parsed.ciphertext) or any(envelope[end:_HEADER]):
            raise PeerError("an envelope with something in its padding: damaged")
        try:
            self._syft.verify_envelope_signature(parsed, bundle.identity_key_bytes)
        except BaseException as error:
            raise PeerError(
                f"an envelope that is not signed by the pinned Syft key of {sender} ({_said(error)})"
            ) from error
        try:
            plaintext: bytes = self._syft.decrypt_message(self._me, self._keys, bundle, parsed)
        except BaseException as error:
            raise PeerError(
                f"an envelope that does not decrypt: damaged, or sealed to another key ({_said(error)})"
            ) from error
        return plaintext


def _said(error: BaseException) -> str:
    """What the library said, if it is a refusal: a parser of untrusted bytes may also panic."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return f"{error!s:.120}"


def _document(bundle: bytes) -> dict[str, Any]:
    """A bundle as the DID document that the library reads."""
    fields = [
        base64.urlsafe_b64encode(bundle[low:high]).rstrip(b"=").decode()
        for low, high in itertools.pairwise((0, 32, 64, 128, 160, BUNDLE_BYTES))
    ]

    def entry(kid: str, kind: str, **jwk: str) -> dict[str, Any]:
        key = {"kty": "OKP", "kid": kid, **jwk}
        return {"id": f"{_DID}#{kid}", "controller": _DID, "type": kind, "publicKeyJwk": key}

    dh, prekey = (
        entry(kid, "X25519KeyAgreementKey2020", crv="X25519", use="enc", x=x, signature=signature)
        for kid, x, signature in (("identity-dh", *fields[1:3]), ("signed-prekey", *fields[3:]))
    )
    identity = entry("identity-key", "Ed25519VerificationKey2020", crv="Ed25519", use="sig", x=fields[0])
    return {
        "@context": ["https://www.w3.org/ns/did/v1"],
        "id": _DID,
        "verificationMethod": [identity],
        "keyAgreement": [dh, prekey],
    }


def _unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
