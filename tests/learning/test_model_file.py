"""A model as bytes: one encoding, read back strictly."""

import contextlib
import hashlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

from choral.errors import UpdateError
from choral.learning.model_file import decode, digest, encode, pack
from choral.learning.update import flatten, schema_of

MODEL = {"weight": np.array([[1, 2]], np.float32), "bias": np.array([-0.5], np.float32)}
MODELS = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name != "__metadata__"),
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    ),
    min_size=1,
    max_size=5,
)


@given(MODELS)
def test_decode_undoes_encode_with_and_without_a_schema(parameters):
    data = encode(parameters)
    for back in (decode(data), decode(data, schema_of(parameters))):
        assert back.keys() == parameters.keys()
        for name, array in back.items():
            assert array.dtype == np.float32
            assert array.flags.writeable
            assert array.shape == parameters[name].shape
            np.testing.assert_array_equal(array, parameters[name])


@given(MODELS)
def test_a_packed_model_is_the_encoded_one_and_ends_in_its_vector(parameters):
    data = pack(parameters)
    assert data == encode(parameters)
    vector = flatten(parameters, schema_of(parameters))
    assert data.endswith(vector.astype("<f4").tobytes())


@given(MODELS, st.randoms())
def test_equal_models_are_equal_bytes(parameters, random):
    names = list(parameters)
    random.shuffle(names)
    again = {name: parameters[name].astype(np.float64, order="F") for name in names}
    assert encode(again) == encode(parameters) == encode(decode(encode(parameters)))


def test_the_bytes_are_those_of_the_format_with_sorted_names_and_no_metadata():
    header = (
        b'{"bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"weight":{"dtype":"F32","shape":[1,2],"data_offsets":[4,12]}}'
    )
    header += b" " * (-len(header) % 8)
    expected = struct.pack("<Q", len(header)) + header + struct.pack("<3f", -0.5, 1, 2)
    assert encode(MODEL) == expected


def test_the_digest_is_sha256_of_the_bytes():
    data = encode(MODEL)
    assert digest(data) == hashlib.sha256(data).digest()
    assert len(digest(data)) == 32


@pytest.mark.parametrize("length", [0, 4, 8, 20, -1])
def test_a_truncated_file_is_refused(length):
    with pytest.raises(UpdateError, match="not safetensors"):
        decode(encode(MODEL)[:length])


@given(st.data())
def test_whatever_the_bytes_only_an_update_error_comes_out(data):
    whole = bytearray(encode(MODEL))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UpdateError):
        decode(bytes(whole), schema_of(MODEL))


@given(st.binary(max_size=64))
def test_noise_is_refused(noise):
    with pytest.raises(UpdateError):
        decode(noise)


def test_bytes_left_over_are_refused():
    with pytest.raises(UpdateError, match="not safetensors"):
        decode(encode(MODEL) + b"\0")


def test_a_header_that_claims_a_huge_array_is_refused():
    entry = {"dtype": "F32", "shape": [10**10], "data_offsets": [0, 4 * 10**10]}
    header = json.dumps({"weight": entry}).encode()
    with pytest.raises(UpdateError, match="not safetensors"):
        decode(struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize("dtype", ["f2", "f8", "i4", "u1", "bool"])
def test_types_other_than_float32_are_refused(dtype):
    with pytest.raises(UpdateError, match=r"array 'a' in the model file is .*, expected F32"):
        decode(save({"a": np.ones(2, dtype)}))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weight": MODEL["weight"]}, "array 'bias' is missing"),
        ({**MODEL, "more": MODEL["bias"]}, "array 'more' is not expected"),
        ({**MODEL, "bias": np.zeros(2, np.float32)}, r"array 'bias' has shape \(2,\), expected \(1,\)"),
    ],
)
def test_another_model_is_refused_by_the_schema(wrong, message):
    with pytest.raises(UpdateError, match=message):
        decode(encode(wrong), schema_of(MODEL))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_neither_written_nor_read(bad):
    parameters = {"a": np.array([0, bad], np.float32)}
    with pytest.raises(UpdateError, match="array 'a' has 1 of 2 values that are not finite"):
        encode(parameters)
    with pytest.raises(UpdateError, match="array 'a' has 1 of 2 values that are not finite"):
        decode(save(parameters))


@pytest.mark.parametrize("name", ["__metadata__", "\ud800"])
def test_a_name_that_the_format_cannot_carry_is_refused(name):
    with pytest.raises(UpdateError, match="is not a name that safetensors can hold"):
        encode({name: np.zeros(1, np.float32)})


def test_a_file_without_arrays_is_refused():
    with pytest.raises(UpdateError, match="no arrays"):
        decode(save({}))
