"""Envelopes of Syft Crypto: what they hold, what is refused by name, and what they leave open (§3.4)."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import threading
from pathlib import Path

import pytest

from choral.errors import IdentityError, ParameterError, PeerError
from choral.integrations.syft import envelope
from choral.integrations.syft.envelope import BUNDLE_BYTES, OVERHEAD_BYTES, EnvelopeKey, Envelopes
from choral.primitives.entropy import seeded

syft = pytest.importorskip("syft_crypto_python", reason='needs pip install "choral[syft]"')

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "envelope.json").read_text())


def key(seed: bytes) -> EnvelopeKey:
    return EnvelopeKey.generate(seeded(seed))


KEYS = {name: key(name.encode()) for name in ("anna", "ben", "chris")}
BUNDLES = {name: found.public for name, found in KEYS.items()}


def desk(name: str, **changes: bytes) -> Envelopes:
    """What `name` knows; `changes` to the bundles that it pinned."""
    return Envelopes(name, KEYS[name], BUNDLES | changes)


@pytest.mark.parametrize("size", [0, 1, 64, 2**20, 2**20 + 1, 3 * 2**20 + 5])
def test_the_recipient_reads_what_was_sealed_and_the_length_is_known_before(size):
    sealed = desk("anna").seal("ben", b"x" * size)
    assert desk("ben").open("anna", sealed) == b"x" * size
    assert len(sealed) == OVERHEAD_BYTES + size


def test_names_of_any_length_give_envelopes_of_one_length():
    long = "m" * 64
    keys = Envelopes(long, KEYS["anna"], {long: BUNDLES["anna"], "b" * 64: BUNDLES["ben"]})
    assert len(keys.seal("b" * 64, b"x" * 80)) == OVERHEAD_BYTES + 80


def test_keys_and_bundles_follow_from_their_seed():
    assert key(b"one").public == key(b"one").public != key(b"two").public
    assert len(key(b"one").public) == BUNDLE_BYTES


@pytest.mark.parametrize("case", VECTORS["opens"], ids=lambda case: case["what"])
def test_envelopes_made_elsewhere_open(case):
    ben = Envelopes("ben", KEYS["ben"], {name: bytes.fromhex(b) for name, b in VECTORS["bundles"].items()})
    assert ben.open(case["sender"], bytes.fromhex(case["envelope"])) == bytes.fromhex(case["plaintext"])


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["what"])
def test_bad_envelopes_made_elsewhere_are_refused(case):
    ben = Envelopes("ben", KEYS["ben"], {name: bytes.fromhex(b) for name, b in VECTORS["bundles"].items()})
    with pytest.raises(PeerError, match=case["because"]):
        ben.open(case["sender"], bytes.fromhex(case["envelope"]))


def test_a_change_in_any_byte_is_refused():
    sealed = desk("anna").seal("ben", b"secret")
    ben = desk("ben")
    for at in range(len(sealed)):
        damaged = bytearray(sealed)
        damaged[at] ^= 1
        with pytest.raises(PeerError):
            ben.open("anna", bytes(damaged))


@pytest.mark.parametrize("cut", [0, 1, 9, 4105, 4187])
def test_a_cut_or_longer_envelope_is_refused(cut):
    sealed = desk("anna").seal("ben", b"secret")
    for other in (sealed[:cut], sealed + b"\0"):
        with pytest.raises(PeerError, match="damaged"):
            desk("ben").open("anna", other)


def test_an_envelope_of_somebody_else_is_refused_whatever_name_it_carries():
    ben = desk("ben")
    with pytest.raises(PeerError, match="was made by 'chris'"):
        ben.open("anna", desk("chris").seal("ben", b"x"))
    # chris calls itself anna
    forged = Envelopes("anna", KEYS["chris"], {"anna": BUNDLES["chris"], "ben": BUNDLES["ben"]})
    with pytest.raises(PeerError, match="not signed by the pinned Syft key of anna"):
        ben.open("anna", forged.seal("ben", b"x"))


def test_an_envelope_for_somebody_else_or_for_several_is_refused():
    with pytest.raises(PeerError, match="for 'chris', not for ben"):
        desk("ben").open("anna", desk("anna").seal("chris", b"x"))
    both = [syft.EncryptionRecipient(name, desk("anna")._bundles[name]) for name in ("ben", "chris")]
    with pytest.raises(PeerError, match="'ben, chris', not for ben"):
        desk("ben").open("anna", syft.encrypt_message("anna", KEYS["anna"]._keys, both, b"x"))


def test_a_swapped_bundle_is_refused_on_either_side():
    with pytest.raises(PeerError, match="not signed by the pinned Syft key of anna"):
        desk("ben", anna=BUNDLES["chris"]).open("anna", desk("anna").seal("ben", b"x"))
    with pytest.raises(PeerError, match="does not decrypt"):
        desk("ben").open("anna", desk("anna", ben=BUNDLES["chris"]).seal("ben", b"x"))


def test_what_a_swapped_bundle_lets_in_cannot_be_read_under_the_real_name():
    # chris got its bundle pinned as ben's at anna's: anna's envelopes name ben, and chris is not ben
    stolen = desk("anna", ben=BUNDLES["chris"]).seal("ben", b"x")
    with pytest.raises(PeerError, match="not for chris"):
        desk("chris").open("anna", stolen)


def test_an_envelope_opens_again_so_the_caller_must_bind_it():
    sealed = desk("anna").seal("ben", b"x")
    ben = desk("ben")
    assert ben.open("anna", sealed) == ben.open("anna", sealed) == b"x"


def test_own_keys_that_are_not_the_pinned_ones_are_refused():
    with pytest.raises(IdentityError, match="not those pinned for anna"):
        Envelopes("anna", KEYS["ben"], BUNDLES)


@pytest.mark.parametrize("at", [0, 40, 70, 130, 200])
def test_a_bundle_whose_signatures_do_not_fit_is_refused(at):
    bad = bytearray(BUNDLES["ben"])
    bad[at] ^= 1
    with pytest.raises(IdentityError, match="bundle of ben cannot be used"):
        desk("anna", ben=bytes(bad))


def test_keys_that_are_kept_come_back():
    kept = KEYS["anna"].private_bytes
    assert EnvelopeKey.from_private_bytes(kept).public == BUNDLES["anna"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"identity_key": 3}', b"null"])
def test_what_holds_no_keys_is_refused(content):
    with pytest.raises(IdentityError, match="not the private keys"):
        EnvelopeKey.from_private_bytes(content)


def test_keys_do_not_show_in_a_repr():
    assert repr(KEYS["anna"]) == "EnvelopeKey(…)"


def test_nothing_is_written_anywhere_and_nothing_is_printed(tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    caplog.set_level(0)
    desk("ben").open("anna", desk("anna").seal("ben", b"secret"))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_one_desk_serves_several_threads():
    anna, ben, wrong = desk("anna"), desk("ben"), []

    def work(mark: int) -> None:
        for turn in range(20):
            text = bytes([mark, turn]) * 40
            if ben.open("anna", anna.seal("ben", text)) != text:
                wrong.append((mark, turn))

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.fixture
def fresh():
    envelope._syft.cache_clear()
    yield
    envelope._syft.cache_clear()


def test_without_the_extra_a_person_is_told_what_to_install(monkeypatch, fresh):
    monkeypatch.setitem(sys.modules, "syft_crypto_python", None)
    with pytest.raises(ParameterError, match="not installed") as told:
        key(b"x")
    assert told.value.hint == 'pip install "choral[syft]"'


def test_another_version_is_refused_by_its_number(monkeypatch, fresh):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.1.2b5")
    with pytest.raises(ParameterError, match=r"found Syft Crypto 0\.1\.2b5, expected 0\.1\.2b4"):
        key(b"x")
