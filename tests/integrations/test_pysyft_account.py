"""`--via pysyft` without PySyft: what a person is told when something is missing or in another version."""

from __future__ import annotations

import importlib.metadata

import pytest
from click.testing import CliRunner

from choral.cli import cli
from choral.errors import IdentityError, ParameterError
from choral.federation.enrolment import AGGREGATOR, Participant
from choral.integrations.syft import folders
from choral.integrations.syft.folders import FILE, Account
from house import make_folder

pytest.importorskip("syft_crypto_python", reason='needs pip install "choral[syft]"')

GOOD = 'email = "m1@example.org"\n[people]\naggregator = "boss@example.org"\n'


@pytest.fixture
def m1(tmp_path):
    return Participant.load(make_folder(tmp_path / "fed", 3, sealing="syft") / "m1")


@pytest.fixture(autouse=True)
def _ask_again():
    known = folders.pysyft
    known.cache_clear()
    yield
    known.cache_clear()


def account(me, text: str) -> Account:
    (me.folder / FILE).write_text(text)
    return Account.load(me, {AGGREGATOR})


def test_an_account_says_who_and_where(m1):
    found = account(m1, GOOD)
    assert found.people == {AGGREGATOR: "boss@example.org"}
    assert found.poll_seconds == 2.0


def test_without_a_file_a_person_is_told_where_to_read(m1):
    with pytest.raises(ParameterError, match=r"pysyft\.toml: not found") as told:
        Account.load(m1, {AGGREGATOR})
    assert "docs/pysyft.md" in (told.value.hint or "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD.replace("aggregator", "boss"), "no account for aggregator"),
        (GOOD.replace("m1@example.org", "m1"), "email"),
        (GOOD.replace("boss@example.org", "boss' or '1@x"), "people"),
        ("poll_seconds = 0\n" + GOOD, "poll_seconds"),
        ("password = 'x'\n" + GOOD, "password"),
        ("email =", "not TOML"),
    ],
)
def test_an_account_that_cannot_be_is_refused(m1, text, reason):
    with pytest.raises(ParameterError, match=reason):
        account(m1, text)


def test_a_federation_without_syft_keys_cannot_travel_so(tmp_path):
    plain = Participant.load(make_folder(tmp_path / "fed", 3) / "m1")
    with pytest.raises(ParameterError, match="this federation has none") as told:
        account(plain, GOOD)
    assert told.value.hint == "make it with `choral init … --sealing syft`"


def test_pysyft_that_is_missing_or_another_is_named(m1, monkeypatch):
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    found = account(m1, GOOD)
    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ParameterError, match="PySyft is not installed") as told:
        folders.connect(m1, found)
    assert told.value.hint == 'pip install "choral[pysyft]"'
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.11.0")
    with pytest.raises(ParameterError, match=r"found PySyft 0\.11\.0, expected 0\.10\.0"):
        folders.connect(m1, found)


def test_a_token_that_everybody_can_read_is_refused(m1, monkeypatch):
    found = account(m1, GOOD)
    monkeypatch.setattr(folders, "pysyft", lambda: None)
    with pytest.raises(ParameterError, match=r"token\.json: not found"):
        folders.connect(m1, found)
    (m1.folder / "token.json").write_text("{}")
    (m1.folder / "token.json").chmod(0o644)
    with pytest.raises(IdentityError, match="every user of this machine"):
        folders.connect(m1, found)


@pytest.mark.parametrize("verb", [["join", "m1", "--data", "x.npy"], ["serve", "aggregator"]])
def test_the_command_line_says_what_is_missing(m1, verb, monkeypatch):
    monkeypatch.chdir(m1.folder.parent)
    result = CliRunner().invoke(cli, [*verb, "--via", "pysyft"])
    assert isinstance(result.exception, ParameterError)
    assert "pysyft.toml" in result.exception.reason
