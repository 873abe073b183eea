"""`sealing = "syft"` on disk: each private part in one folder, every bundle pinned in all of them (§3.4)."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from choral.cli import cli
from choral.errors import IdentityError, ParameterError
from choral.federation.enrolment import AGGREGATOR, SYFT_KEYS, Federation, Participant
from choral.federation.files import read_toml
from choral.federation.task import Task
from choral.integrations.syft.sealing import Syft
from choral.protocol.sealing import AES_GCM
from house import make_folder, make_task

pytest.importorskip("syft_crypto_python", reason='needs pip install "choral[syft]"')


@pytest.fixture
def fed(tmp_path):
    return make_folder(tmp_path / "fed", 3, sealing="syft")


def rewrite(folder, change):
    """The folder's federation file, changed."""
    values = read_toml(folder / "federation.toml")
    change(values)
    Federation.model_construct(**values)
    text = json.loads(json.dumps(values))
    Federation.model_validate(text).save(folder / "federation.toml")


def test_each_folder_holds_its_own_private_keys_and_nobody_elses(fed):
    secrets = {}
    for folder in sorted(fed.iterdir()):
        file = folder / SYFT_KEYS
        assert file.stat().st_mode & 0o777 == 0o600
        secrets[folder.name] = [key["d"] for key in json.loads(file.read_bytes()).values()]
    assert len({part for parts in secrets.values() for part in parts}) == 3 * 4
    for folder in fed.iterdir():
        content = b"".join(file.read_bytes() for file in folder.iterdir())
        for name, parts in secrets.items():
            assert all((part.encode() in content) == (name == folder.name) for part in parts)


def test_every_folder_pins_the_bundles_of_all(fed):
    people = [Participant.load(folder) for folder in sorted(fed.iterdir())]
    pinned = people[0].federation.bundles
    assert pinned.keys() == {AGGREGATOR, "m1", "m2", "m3"}
    assert all(person.federation.bundles == pinned for person in people)
    assert all(isinstance(person.sealing, Syft) for person in people)


def test_a_federation_under_aes_gcm_has_no_bundles_and_needs_no_extra(tmp_path):
    fed = make_folder(tmp_path / "plain", 3)
    assert not list(fed.rglob(SYFT_KEYS))
    assert "bundles" not in (fed / "m1" / "federation.toml").read_text()
    assert Participant.load(fed / "m1").sealing is AES_GCM


def test_the_sealing_is_part_of_the_task():
    plain, sealed = make_task(3)[0], make_task(3, sealing="syft")[0]
    assert plain.digest != sealed.digest
    assert Task.decode(sealed.encode()) == sealed


def test_another_folders_keys_are_refused(fed):
    file = fed / "m1" / SYFT_KEYS
    file.unlink()
    file.write_bytes((fed / "m2" / SYFT_KEYS).read_bytes())
    file.chmod(0o600)
    with pytest.raises(IdentityError, match="not those pinned for m1"):
        _ = Participant.load(fed / "m1").sealing


def test_missing_or_open_keys_are_refused(fed):
    (fed / "m1" / SYFT_KEYS).chmod(0o604)
    with pytest.raises(IdentityError, match="every user"):
        _ = Participant.load(fed / "m1").sealing
    (fed / "m1" / SYFT_KEYS).unlink()
    with pytest.raises(IdentityError, match="cannot be read"):
        _ = Participant.load(fed / "m1").sealing


def test_a_file_that_holds_no_keys_is_named(fed):
    file = fed / "m1" / SYFT_KEYS
    file.write_bytes(b"{}")
    with pytest.raises(IdentityError, match=f"{file}: not the private keys"):
        _ = Participant.load(fed / "m1").sealing


def test_bundles_that_were_taken_out_are_missed(fed):
    rewrite(fed / "m1", lambda values: values.pop("bundles"))
    with pytest.raises(ParameterError, match="pins no Syft bundles"):
        Participant.load(fed / "m1")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda bundles: bundles.pop("m2"), "m2"),
        (lambda bundles: bundles.update(zoe=bundles["m2"][:-1] + "0"), "zoe"),
        (lambda bundles: bundles.update(m2=bundles["m3"]), "one and the same Syft key"),
        (lambda bundles: bundles.update(m2=bundles["m2"][:-2]), "bundles"),
    ],
)
def test_bundles_that_cannot_be_are_refused(fed, change, reason):
    with pytest.raises(ValueError, match=reason):
        rewrite(fed / "m1", lambda values: change(values["bundles"]))


def test_init_warns_where_envelopes_get_many(tmp_path):
    given = ["--features", "4", "--weight-cap", "10", "--sealing", "syft"]
    few = CliRunner().invoke(cli, ["init", str(tmp_path / "few"), "--members", "3", *given])
    many = CliRunner().invoke(cli, ["init", str(tmp_path / "many"), "--members", "60", *given])
    assert few.exit_code == many.exit_code == 0
    assert "sealed by Syft Crypto" in few.output
    assert "sensible for up to about 50" not in few.output.replace("\n", " ")
    assert "15 MB" in many.output
