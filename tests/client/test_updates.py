"""What a member's own model or data gets wrong is its own trouble: refused before masks, the others go on."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from choral.errors import UpdateError
from choral.learning import Softmax
from house import CLASSES, FEATURES, house


def odd(spoil) -> Softmax:
    """A model whose training ends as `spoil` says."""

    class Odd(Softmax):
        def train(self, parameters, X, y, rng):  # noqa: N803
            return spoil(super().train(parameters, X, y, rng))

    return Odd(FEATURES, CLASSES, batch=8)


def with_value(value):
    def spoil(arrays):
        arrays["weight"][1, 2] = value
        return arrays

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            with_value(np.nan),
            "array 'weight' has 1 of 12 values that are not finite.*the first at \\(1, 2\\)",
        ),
        (with_value(np.inf), "array 'weight'"),
        (with_value(-np.inf), "array 'weight'"),
        (lambda arrays: arrays | {"weight": arrays["weight"].T}, "array 'weight' has shape \\(3, 4\\)"),
        (lambda arrays: {"weight": arrays["weight"]}, "array 'bias' is missing"),
        (lambda arrays: arrays | {"extra": arrays["bias"]}, "array 'extra' is not expected"),
        (lambda arrays: arrays | {"bias": np.zeros(3, int)}, "array 'bias'"),
    ],
)
async def test_an_update_that_cannot_be_is_refused_before_it_is_masked_and_the_others_finish(
    tmp_path, spoil, said
):
    async with house(tmp_path, 4, rounds=1) as home:
        with pytest.raises(UpdateError, match=said):
            await asyncio.wait_for(home.member(1, trainer=odd(spoil)), 5)
        assert not [
            path for method, path in home.asked if method in ("POST", "PUT")
        ]  # nothing of it has left
        records = await asyncio.wait_for(asyncio.gather(*(home.member(i) for i in (2, 3, 4))), 8)
        assert {record.version for record in records} == {1}


async def test_a_failure_of_the_users_own_model_comes_out_as_it_is(tmp_path):
    def fail(arrays):
        raise ZeroDivisionError("the user's own")

    async with house(tmp_path, 4, rounds=1) as home:
        with pytest.raises(ZeroDivisionError, match="the user's own"):
            await asyncio.wait_for(home.member(1, trainer=odd(fail)), 5)
