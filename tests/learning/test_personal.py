"""Arrays of a member's own stay with it, and the shared ones are learned around them."""

import numpy as np
import pytest

from choral.errors import ParameterError, UpdateError
from choral.learning import MLP, Personal, Softmax
from choral.learning.softmax import built_in
from choral.learning.trainer import trainer_at
from choral.learning.update import schema_of

RNG = np.random.default_rng(5)
X = RNG.random((60, 8), dtype=np.float32)
Y = RNG.integers(0, 3, 60)
INNER = MLP(8, 5, 3, epochs=3, rate=0.5)


def personal(**more):
    return Personal(INNER, "output.*", **more)


def start():
    return personal().initial(np.random.default_rng(1))


def test_what_is_personal_is_in_no_schema():
    assert schema_of(start()) == (("hidden.bias", (5,)), ("hidden.weight", (8, 5)))
    assert start().keys() == personal().train(start(), X, Y, np.random.default_rng(2)).keys()


def test_the_first_training_is_that_of_the_whole_model_from_its_initial_head():
    head = {k: v for k, v in INNER.initial(np.random.default_rng(0)).items() if k.startswith("output.")}
    whole = INNER.train({**start(), **head}, X, Y, np.random.default_rng(2))
    for name, array in personal().train(start(), X, Y, np.random.default_rng(2)).items():
        np.testing.assert_array_equal(array, whole[name])


def test_the_head_goes_on_from_where_it_is_and_is_measured_with():
    trainer = personal()
    losses = [trainer.evaluate(start(), X, Y).loss]
    for seed in range(3):
        trainer.train(start(), X, Y, np.random.default_rng(seed))
        losses.append(trainer.evaluate(start(), X, Y).loss)
    assert losses == sorted(losses, reverse=True)


def test_two_members_have_two_heads():
    one, two = personal(), personal()
    one.train(start(), X, Y, np.random.default_rng(0))
    two.train(start(), X, (Y + 1) % 3, np.random.default_rng(0))
    assert one.evaluate(start(), X, Y) != two.evaluate(start(), X, Y)


def test_the_head_outlives_its_process(tmp_path):
    kept = personal().kept_in(tmp_path / "own.safetensors")
    kept.train(start(), X, Y, np.random.default_rng(0))
    again = personal().kept_in(tmp_path / "own.safetensors")
    assert again.evaluate(start(), X, Y) == kept.evaluate(start(), X, Y)
    assert [path.name for path in tmp_path.iterdir()] == ["own.safetensors"]


def test_the_head_of_another_model_is_refused(tmp_path):
    file = tmp_path / "own.safetensors"
    personal().kept_in(file).train(start(), X, Y, np.random.default_rng(0))
    with pytest.raises(UpdateError, match="output"):
        Personal(MLP(8, 6, 3), "output.*").kept_in(file)


def test_a_schedule_goes_through_and_the_head_is_the_same_one():
    trainer = Personal(MLP(8, 5, 3, schedule="step:1:0.5"), "output.*")
    later = trainer_at(trainer, 3)
    assert later.trainer.rate == pytest.approx(0.0125)
    before = trainer.evaluate(start(), X, Y)
    later.train(start(), X, Y, np.random.default_rng(0))
    assert trainer.evaluate(start(), X, Y) == later.evaluate(start(), X, Y) != before
    assert trainer.takes_pixels


@pytest.mark.parametrize("patterns", [(), ("head.*",), ("output.*", "head.*"), ("*",)])
def test_patterns_that_name_nothing_or_everything_are_refused(patterns):
    with pytest.raises(ParameterError, match=r"no array of the model is called|expected some to be personal"):
        Personal(INNER, *patterns)


def test_a_task_names_what_is_personal():
    trainer = built_in("mlp", 8, 3, {"hidden": 5, "personal": "output.bias,output.weight"})
    assert isinstance(trainer, Personal)
    assert trainer.trainer == MLP(8, 5, 3)
    assert isinstance(built_in("softmax", 8, 3, {}), Softmax)


def test_a_list_of_patterns_may_have_blanks():
    trainer = built_in("mlp", 8, 3, {"personal": "output.*, hidden.bias"})
    assert list(trainer.initial(np.random.default_rng(0))) == ["hidden.weight"]


def test_a_place_where_the_head_cannot_be_kept_gets_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "head", tmp_path):
        with pytest.raises(ParameterError, match="cannot be read"):
            personal().kept_in(place)
    gone = personal(keep=tmp_path / "gone" / "head")
    with pytest.raises(ParameterError, match="cannot be written") as caught:
        gone.train(start(), X, Y, np.random.default_rng(0))
    assert "Errno" not in caught.value.reason


def test_what_is_kept_is_its_owners_only(tmp_path):
    personal(keep=tmp_path / "head").train(start(), X, Y, np.random.default_rng(0))
    assert (tmp_path / "head").stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [tmp_path / "head"]
