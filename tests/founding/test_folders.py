"""`choral init`: one folder a participant, one private key in each and nowhere twice (§2)."""

from __future__ import annotations

import re
import shutil

import pytest

from choral.errors import ParameterError
from choral.federation import key_file
from choral.federation.enrolment import AGGREGATOR, Participant
from choral.founding import folders as module
from choral.founding.folders import provision
from choral.primitives.entropy import seeded
from house import make_folder, make_task


def make(root, **changes):
    task, initial = make_task(3)
    given = {
        "url": "http://127.0.0.1:8750", "members": ["anna", "ben", "chris"], "task": task,
        "initial": initial, "minimum": 3, "tolerated": "quarter", "random": seeded(b"keys"),
    } | changes  # fmt: skip
    return provision(root, **given)


def test_each_folder_has_one_private_key_and_no_key_is_in_two_places(tmp_path):
    root = make_folder(tmp_path / "fed", 4)
    found: dict[bytes, list[str]] = {}
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        for key in re.findall(rb"-----BEGIN PRIVATE KEY-----(.*?)-----END", file.read_bytes(), re.S):
            found.setdefault(key.strip(), []).append(file.parent.name)
    assert sorted(found.values()) == [["aggregator"], ["m1"], ["m2"], ["m3"], ["m4"]]


def test_no_file_holds_the_bytes_of_anothers_key_in_any_form(tmp_path):
    drawn = []

    def random(count):
        drawn.append(seeded(bytes([len(drawn)]))(count))
        return drawn[-1]

    make(tmp_path / "fed", random=random)
    assert len(set(drawn)) == 4
    for file in (path for path in (tmp_path / "fed").rglob("*") if path.is_file()):
        data = file.read_bytes()
        for seed in drawn:
            assert seed not in data
            assert seed.hex().encode() not in data.lower()


def test_private_files_are_for_their_owner_only(tmp_path):
    root = make_folder(tmp_path / "fed", 3)
    for key in root.rglob("identity.pem"):
        assert key.stat().st_mode & 0o077 == 0
        assert key.parent.stat().st_mode & 0o077 == 0


def test_every_participant_has_the_same_federation_and_task(tmp_path):
    root = make_folder(tmp_path / "fed", 3)
    people = [Participant.load(folder) for folder in sorted(root.iterdir())]
    assert [person.name for person in people] == [AGGREGATOR, "m1", "m2", "m3"]
    assert len({person.task.digest for person in people}) == 1
    assert len({person.federation.model_dump_json() for person in people}) == 1
    assert people[0].expect(aggregator=True) is people[0]
    with pytest.raises(ParameterError, match="is the folder of m1, expected the aggregator's"):
        people[1].expect(aggregator=True)


def test_what_exists_is_never_replaced(tmp_path):
    make(tmp_path / "fed")
    before = (tmp_path / "fed/anna/identity.pem").read_bytes()
    with pytest.raises(ParameterError, match="exists already"):
        make(tmp_path / "fed", random=seeded(b"other"))
    assert (tmp_path / "fed/anna/identity.pem").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(ParameterError, match="exists already"):
        make(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty")  # an empty folder is as good as none


@pytest.mark.parametrize(
    "changes",
    [
        {"members": ["anna", "anna", "ben"]},
        {"members": ["anna", "ben", "../chris"]},
        {"members": ["anna", "ben", "a/b"]},
        {"members": ["anna", "ben", ""]},
        {"members": ["anna", "ben", "x" * 65]},
        {"members": ["anna", "ben", AGGREGATOR]},
        {"members": ["anna", "ben"]},
        {"minimum": 1},
        {"minimum": 2},
        {"tolerated": -1},
        {"tolerated": "half"},
        {"random": bytes},  # everybody would have one and the same key
    ],
)
def test_a_federation_that_cannot_be_leaves_nothing_behind(tmp_path, changes):
    with pytest.raises(ParameterError):
        make(tmp_path / "fed", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_the_middle_leaves_nothing_behind(tmp_path, monkeypatch):
    save, saved = key_file.save, []

    def failing(identity, path):
        saved.append(path)
        if len(saved) == 3:
            raise OSError("disk full")
        save(identity, path)

    monkeypatch.setattr(key_file, "save", failing)
    with pytest.raises(OSError, match="disk full"):
        make(tmp_path / "fed")
    assert len(saved) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_large_federation_is_one_file_under_many_names_and_each_folder_is_whole_when_copied(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "LARGEST_COPIES", 1000)
    root = make_folder(tmp_path / "fed", 3)
    files = sorted(root.glob("*/federation.toml"))
    assert len({file.stat().st_ino for file in files}) == 1
    assert all(file.stat().st_mode & 0o222 == 0 for file in files)  # nobody edits all by editing one
    assert not [path for path in root.iterdir() if path.is_file()]
    shutil.copytree(root / "m1", tmp_path / "handed-out")
    handed = tmp_path / "handed-out" / "federation.toml"
    assert handed.stat().st_nlink == 1
    assert Participant.load(tmp_path / "handed-out").name == "m1"


def test_a_small_federation_has_a_file_of_its_own_in_each_folder(tmp_path):
    root = make_folder(tmp_path / "fed", 3)
    files = sorted(root.glob("*/federation.toml"))
    assert len({file.stat().st_ino for file in files}) == 4
    assert all(file.stat().st_mode & 0o200 for file in files)


def test_a_file_system_without_links_gets_copies(tmp_path, monkeypatch):
    def none(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(module, "LARGEST_COPIES", 0)
    monkeypatch.setattr(module.os, "link", none)
    root = make_folder(tmp_path / "fed", 3)
    contents = {file.read_bytes() for file in root.glob("*/federation.toml")}
    assert len(contents) == 1
    assert {file.stat().st_nlink for file in root.glob("*/federation.toml")} == {1}
