"""Writes envelope.json: envelopes that must open and envelopes that must not.

Syft Crypto draws an envelope's randomness by itself, so every run of this gives other envelopes; the file
that is there stays as it is. Keys are those of the seeds.
"""

from __future__ import annotations

import json
from pathlib import Path

from choral.integrations.syft.envelope import EnvelopeKey, Envelopes
from choral.primitives.entropy import seeded


def main() -> None:
    keys = {name: EnvelopeKey.generate(seeded(name.encode())) for name in ("anna", "ben", "chris")}
    bundles = {name: key.public for name, key in keys.items()}
    anna, chris = Envelopes("anna", keys["anna"], bundles), Envelopes("chris", keys["chris"], bundles)
    liar = Envelopes("anna", keys["chris"], bundles | {"anna": bundles["chris"]})
    fooled = Envelopes("anna", keys["anna"], bundles | {"ben": bundles["chris"]})
    good = anna.seal("ben", b"a share of a secret")
    end = 9 + int.from_bytes(good[5:9], "little")

    def changed(at: int) -> bytes:
        return good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]

    refused = {
        "its ciphertext damaged": (changed(len(good) - 20), "does not decrypt"),
        "its signature damaged": (changed(4110), "not signed by the pinned Syft key of anna"),
        "something in its padding": (changed(end + 5), "padding"),
        "cut": (good[:-1], "damaged"),
        "of chris": (chris.seal("ben", b"a share"), "was made by 'chris'"),
        "of chris under anna's name": (
            liar.seal("ben", b"a share"),
            "not signed by the pinned Syft key of anna",
        ),
        "for chris": (anna.seal("chris", b"a share"), "for 'chris', not for ben"),
        "for ben under chris's bundle": (fooled.seal("ben", b"a share"), "does not decrypt"),
    }
    vectors = {
        "seeds": {name: name.encode().hex() for name in keys},
        "bundles": {name: bundle.hex() for name, bundle in bundles.items()},
        "opens": [
            {
                "what": what,
                "sender": "anna",
                "envelope": anna.seal("ben", text).hex(),
                "plaintext": text.hex(),
            }
            for what, text in (
                ("empty", b""),
                ("a share", b"a share of a secret"),
                ("4 kB", bytes(range(256)) * 16),
            )
        ],
        "refused": [
            {"what": what, "sender": "anna", "envelope": data.hex(), "because": because}
            for what, (data, because) in refused.items()
        ],
    }
    path = Path(__file__).with_name("envelope.json")
    path.write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
