"""What everybody agrees on: one digest, strict files, floors that are safe (§2, §6.2)."""

from __future__ import annotations

import shutil

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from choral.errors import IdentityError, ParameterError, WireError
from choral.federation.enrolment import Federation, Participant
from choral.federation.files import read_toml
from choral.federation.task import Model, Rule, Task
from choral.protocol.wire import pack
from house import make_folder, make_task

TASK, _ = make_task(5)
CHANGES = {
    "name": "other",
    "rule": Rule(name="fedadam"),
    "rounds": 4,
    "largest_cohort": 6,
    "clip": 4.0,
    "weight_cap": 99,
    "holdout": 0.1,
    "max_staleness": 1,
    "seed": 1,
    "patience": 5,
}
MODEL_CHANGES = {
    "name": "mlp",
    "features": 5,
    "classes": 4,
    "arrays": {"bias": (3,), "weight": (3, 4)},
    "initial": "0" * 64,
    "options": {"epochs": 2},
}


def changed(**changes) -> Task:
    return Task.model_validate(TASK.model_dump() | changes)


def test_the_digest_of_a_task_never_changes():
    """Every ctx, round and record hangs on it. If this fails, running federations fall apart."""
    task = Task(
        name="known",
        model=Model(
            name="softmax", features=2, classes=2, arrays={"b": (2,), "w": (2, 2)}, initial="ab" * 32
        ),
        largest_cohort=3,
        weight_cap=10,
    )
    assert task.digest == Task.decode(task.encode()).digest
    assert task.digest.hex() == "c0b15dae4b30f4a3409cec4e6b01d264381a9ecff09a6eb67d971c5a414af684"


@pytest.mark.parametrize("field", CHANGES)
def test_any_changed_field_is_another_task(field):
    assert changed(**{field: CHANGES[field]}).digest != TASK.digest


@pytest.mark.parametrize("field", MODEL_CHANGES)
def test_any_changed_field_of_the_model_is_another_task(field):
    model = TASK.model.model_dump() | {field: MODEL_CHANGES[field]}
    assert changed(model=model).digest != TASK.digest


def test_every_field_is_in_the_digest():
    covered = {*CHANGES, "model", "sealing", "verify", "privacy"}  # the last three have one value each so far
    assert covered == set(Task.model_fields)
    assert set(MODEL_CHANGES) == set(Model.model_fields)


def test_a_task_survives_its_file_and_its_encoding(tmp_path):
    TASK.save(tmp_path / "task.toml")
    assert Task.load(tmp_path / "task.toml").encode() == TASK.encode()
    assert Task.decode(TASK.encode()) == TASK


@pytest.mark.parametrize(
    "changes",
    [
        {"extra": 1}, {"rounds": 0}, {"rounds": 1.5}, {"largest_cohort": 1}, {"largest_cohort": 257},
        {"clip": 0.0}, {"clip": -1.0}, {"clip": float("nan")}, {"clip": float("inf")}, {"weight_cap": 0},
        {"holdout": 1.0}, {"holdout": -0.1}, {"max_staleness": -1}, {"seed": -1}, {"sealing": "none"},
        {"verify": True}, {"privacy": "some"}, {"name": "../x"}, {"name": ""}, {"model": {}},
        {"rounds": "many"},
    ],
)  # fmt: skip
def test_a_task_that_is_wrong_names_the_field(tmp_path, changes):
    (tmp_path / "task.toml").write_text(tomli_w.dumps(TASK.model_dump(mode="json") | changes))
    with pytest.raises(ParameterError, match=next(iter(changes)).replace("_", ".")):
        Task.load(tmp_path / "task.toml")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"rounds =", b"[a]\n[a]\n", b"a = 1\na = 2"])
def test_a_file_that_is_not_toml_says_so(tmp_path, content):
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(ParameterError, match="not TOML"):
        read_toml(tmp_path / "x.toml")
    with pytest.raises(ParameterError, match="cannot be read"):
        read_toml(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        TASK.encode()[:-1],
        TASK.encode() + b"\0",
        b"\xd9\xd9\xf7" + TASK.encode(),
        pack({}),
        pack([1]),
        b"\xff",
    ],
)
def test_only_the_canonical_encoding_of_a_task_is_one(data):
    with pytest.raises(WireError):
        Task.decode(data)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else_than_a_wire_error(data):
    with pytest.raises(WireError):
        Task.decode(data)


# ----- enrolment ------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "fed", 3) / "m1"


def edit(folder, **changes):
    file = folder / "federation.toml"
    file.write_text(tomli_w.dumps(read_toml(file) | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"minimum": 1}, "minimum"),
        ({"minimum": 2}, "federations of two only"),
        ({"minimum": 4}, "fewer than the smallest cohort"),
        ({"tolerated": 2}, "cannot bear 2 colluding"),
        ({"tolerated": -1}, "tolerated"),
        ({"tolerated": "none"}, "tolerated"),
        ({"sends_per_model": 0}, "sends_per_model"),
        ({"surprise": 1}, "surprise"),
        ({"members": {}}, "members"),
    ],
)
def test_floors_that_are_not_safe_are_refused_by_the_participant_itself(folder, changes, said):
    edit(folder, **changes)
    with pytest.raises(ParameterError, match=said):
        Participant.load(folder)


def test_a_participant_decides_by_its_own_copy(folder):
    edit(folder, tolerated=1)
    assert Participant.load(folder).parameters.threshold(3) == 3
    assert Participant.load(folder.parent / "m2").parameters.threshold(3) == 2


def test_two_participants_with_one_key_are_refused(folder):
    members = read_toml(folder / "federation.toml")["members"]
    edit(folder, members=members | {"m2": members["m1"]})
    with pytest.raises(ParameterError, match="one and the same key"):
        Participant.load(folder)


@pytest.mark.parametrize("key", ["01" + "00" * 31, "01" + "00" * 30 + "80", "ee" + "ff" * 30 + "7f"])
def test_a_key_under_which_anybody_could_sign_is_refused(folder, key):
    """The neutral element in its three encodings: as bytes they are three members."""
    members = read_toml(folder / "federation.toml")["members"]
    edit(folder, members=members | {"m2": key})
    with pytest.raises(ParameterError, match="anybody could sign under it"):
        Participant.load(folder)


def test_a_federation_of_two_is_warned_about_and_three_is_not(tmp_path):
    two = Participant.load(make_folder(tmp_path / "two", 2) / "m1")
    assert "Nothing is private between them" in two.federation.warning
    assert Participant.load(make_folder(tmp_path / "three", 3) / "m1").federation.warning is None


def test_a_key_of_another_federation_is_not_enrolled(tmp_path, folder):
    other = make_folder(tmp_path / "other", 3)
    (folder / "identity.pem").unlink()
    shutil.copy(other / "m1/identity.pem", folder / "identity.pem")
    with pytest.raises(IdentityError, match="is not enrolled") as error:
        Participant.load(folder)
    assert error.value.hint


@pytest.mark.parametrize("file", ["federation.toml", "task.toml", "identity.pem"])
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises((ParameterError, IdentityError), match=file):
        Participant.load(folder)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8750", "ftp://a", "http://", "http://[", "javascript:1"])
def test_an_address_that_is_none_is_refused_before_a_key_is_made(folder, url):
    edit(folder, aggregator=read_toml(folder / "federation.toml")["aggregator"] | {"url": url})
    with pytest.raises(ParameterError, match="url"):
        Federation.load(folder / "federation.toml")
