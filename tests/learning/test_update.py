"""Named arrays to one vector and back, and what is refused on the way."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from choral.errors import UpdateError
from choral.learning.update import difference, flatten, own_copy, schema_of, size, unflatten

FINITE = st.floats(-(2.0**100), 2.0**100, width=32)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
MODELS = st.dictionaries(
    st.text(max_size=8), hnp.arrays(np.float32, SHAPES, elements=FINITE), min_size=1, max_size=5
)


def model() -> dict[str, np.ndarray]:
    return {
        "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "bias": np.array([-1, 1], np.float32),
    }


SCHEMA = schema_of(model())


@given(MODELS)
def test_unflatten_undoes_flatten(parameters):
    schema = schema_of(parameters)
    vector = flatten(parameters, schema)
    assert vector.dtype == np.float32
    assert vector.shape == (size(schema),)
    back = unflatten(vector, schema)
    assert back.keys() == parameters.keys()
    for name, array in parameters.items():
        assert back[name].dtype == np.float32
        assert back[name].shape == array.shape
        np.testing.assert_array_equal(back[name], array)


@given(MODELS, st.randoms())
def test_the_order_of_a_dictionary_means_nothing(parameters, random):
    names = list(parameters)
    random.shuffle(names)
    shuffled = {name: parameters[name] for name in names}
    schema = schema_of(parameters)
    assert schema_of(shuffled) == schema
    assert flatten(shuffled, schema).tobytes() == flatten(parameters, schema).tobytes()


@given(MODELS)
def test_the_difference_of_a_model_and_itself_is_zero(parameters):
    assert not difference(parameters, parameters, schema_of(parameters)).any()


def test_the_difference_leads_from_the_base_to_the_new_model():
    new = {name: array + np.float32(0.5) for name, array in model().items()}
    np.testing.assert_array_equal(
        flatten(model(), SCHEMA) + difference(new, model(), SCHEMA), flatten(new, SCHEMA)
    )


def test_arrays_lie_in_the_vector_by_name_each_in_c_order():
    assert flatten(model(), SCHEMA).tolist() == [-1, 1, 0, 1, 2, 3, 4, 5]
    fortran = {name: np.asfortranarray(array) for name, array in model().items()}
    assert flatten(fortran, SCHEMA).tolist() == [-1, 1, 0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8"])
def test_other_floats_become_float32(dtype):
    vector = flatten({name: array.astype(dtype) for name, array in model().items()}, SCHEMA)
    assert vector.dtype == np.dtype(np.float32)
    assert vector.tolist() == [-1, 1, 0, 1, 2, 3, 4, 5]


def test_nothing_that_comes_back_shares_memory_with_what_went_in():
    parameters = model()
    vector = flatten(parameters, SCHEMA)
    arrays = [*unflatten(vector, SCHEMA).values(), *own_copy(parameters, SCHEMA).values()]
    for array in arrays:
        assert array.flags.writeable
        array[...] = 9
    assert vector.tolist() == [-1, 1, 0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(parameters["weight"], model()["weight"])


NAN = np.array([[0, 1, 2], [np.nan, 4, np.nan]], np.float32)
REFUSED = {
    "missing": (
        {"weight": None},
        "array 'weight' is missing: found ['bias'], expected ['bias', 'weight']",
    ),
    "extra": ({"more": np.zeros(1)}, "array 'more' is not expected: found ['bias', 'more', 'weight']"),
    "name": ({3: np.zeros(1)}, "array 3 is not expected"),
    "shape": ({"weight": np.zeros((3, 2))}, "array 'weight' has shape (3, 2), expected (2, 3)"),
    "integers": (
        {"weight": np.zeros((2, 3), np.int64)},
        "array 'weight' is int64 (2, 3), expected an array of floats",
    ),
    "complex": ({"bias": np.zeros(2, complex)}, "array 'bias' is complex128 (2,), expected"),
    "objects": ({"bias": np.zeros(2, object)}, "array 'bias' is object (2,), expected"),
    "list": ({"bias": [0.0, 0.0]}, "array 'bias' is a list, expected an array of floats"),
    "NaN": ({"weight": NAN}, "array 'weight' has 2 of 6 values that are not finite in float32, "
            "the first at (1, 0): nan"),
    "infinity": ({"bias": np.array([0, -np.inf])}, "'bias' has 1 of 2 values that are not finite "
                 "in float32, the first at (1,): -inf"),
    "overflow": ({"bias": np.array([1e300, 0])}, "'bias' has 1 of 2 values that are not finite "
                 "in float32, the first at (0,): 1e+300"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("error")
def test_a_refusal_names_the_array_what_was_found_and_what_was_expected(case):
    change, message = REFUSED[case]
    wrong = {name: array for name, array in {**model(), **change}.items() if array is not None}
    with pytest.raises(UpdateError, match=re.escape(message)):
        flatten(wrong, SCHEMA)
    with pytest.raises(UpdateError, match=re.escape(message)):
        difference(wrong, model(), SCHEMA)
    with pytest.raises(UpdateError, match=re.escape(message)):
        difference(model(), wrong, SCHEMA)


@pytest.mark.filterwarnings("error")
def test_a_difference_too_large_for_float32_is_refused():
    new, base = model(), model()
    new["weight"][1, 2], base["weight"][1, 2] = 3e38, -3e38
    with pytest.raises(UpdateError, match=r"array 'weight' has 1 of 6 .* \(1, 2\): inf"):
        difference(new, base, SCHEMA)


@pytest.mark.parametrize("wrong", [np.zeros(7, np.float32), np.zeros(8), np.zeros((8, 1), np.float32), [0.0]])
def test_only_a_float32_vector_of_the_right_length_is_unflattened(wrong):
    with pytest.raises(UpdateError, match=r"expected float32 \(8,\)"):
        unflatten(wrong, SCHEMA)


@pytest.mark.parametrize("wrong", [{}, {"weight": np.zeros(1, np.int8)}, {1: np.zeros(1)}])
def test_a_schema_is_made_of_named_arrays_of_floats(wrong):
    with pytest.raises(UpdateError, match="expected"):
        schema_of(wrong)
