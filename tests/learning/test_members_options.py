"""What members add to plain descent: FedProx, schedules by version, pixels as they lie on disk."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from choral.errors import ParameterError
from choral.learning import MLP, Softmax
from choral.learning.baselines import train_alone
from choral.learning.schedule import factor
from choral.learning.softmax import built_in
from choral.learning.trainer import Scheduled, trainer_at

RNG = np.random.default_rng(11)
PIXELS = RNG.integers(0, 256, (90, 12), dtype=np.uint8)
X = PIXELS / np.float32(255)
Y = RNG.integers(0, 4, 90).astype(np.uint8)
KINDS = {"softmax": Softmax, "mlp": MLP}


def make(kind, **options):
    return KINDS[kind](features=12, classes=4, **options)


def distance(model, start, seed=0):
    trained = model.train(start, X, Y, np.random.default_rng(seed))
    return sum(float(((trained[name] - start[name]) ** 2).sum()) for name in start)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_fedprox_is_the_gradient_of_the_loss_and_of_the_distance(kind):
    """One full batch twice: the second step starts away from the global model, so the term shows."""
    mu, rate = 3.0, 0.2
    plain, prox = (make(kind, batch=90, rate=rate, mu=value) for value in (0.0, mu))
    start = plain.initial(np.random.default_rng(1))
    once = plain.train(start, X, Y, np.random.default_rng(2))
    for name, array in prox.train(start, X, Y, np.random.default_rng(2)).items():
        np.testing.assert_allclose(array, once[name], atol=1e-6)  # no distance yet, no pull
    both = make(kind, batch=90, rate=rate, mu=mu, epochs=2).train(start, X, Y, np.random.default_rng(2))
    twice = plain.train(once, X, Y, np.random.default_rng(2))
    for name, array in both.items():
        np.testing.assert_allclose(array, twice[name] - rate * mu * (once[name] - start[name]), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_larger_mu_the_nearer_the_members_model_stays(kind):
    start = make(kind).initial(np.random.default_rng(1))
    moved = [distance(make(kind, epochs=20, rate=0.1, mu=mu), start) for mu in (0, 0.5, 5)]
    assert moved[0] > moved[1] > moved[2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mu", [-0.1, float("nan"), 10.0, "1", True])
def test_a_mu_that_would_overshoot_or_means_nothing_is_refused(kind, mu):
    with pytest.raises(ParameterError, match="mu is"):
        make(kind, rate=0.1, mu=mu)


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_trains_as_the_rate_that_it_names_for_the_version(kind):
    model = make(kind, rate=0.8, schedule="step:10:0.5")
    start = model.initial(np.random.default_rng(0))
    assert isinstance(model, Scheduled)
    for version, rate in ((0, 0.8), (9, 0.8), (10, 0.4), (25, 0.2)):
        one = trainer_at(model, version).train(start, X, Y, np.random.default_rng(3))
        two = make(kind, rate=rate).train(start, X, Y, np.random.default_rng(3))
        for name in start:
            np.testing.assert_array_equal(one[name], two[name])


def test_asking_twice_for_a_version_does_not_shrink_twice():
    model = Softmax(12, 4, rate=1.0, schedule="exponential:0.5")
    assert model.at(3) == model.at(3).at(3)
    assert model.rate == 1.0


def test_a_trainer_without_a_schedule_is_the_same_at_every_version():
    class Plain:
        initial = train = evaluate = None

    plain = Plain()
    assert trainer_at(plain, 7) is plain


@given(
    st.sampled_from(["constant", "exponential:0.97", "step:5:0.3", "cosine:40", "exponential:1e-9"]),
    st.integers(0, 10**6),
)
def test_a_factor_is_above_zero_and_never_grows(schedule, version):
    assert 0 < factor(schedule, version + 1) <= factor(schedule, version) <= factor(schedule, 0) == 1


@pytest.mark.parametrize(
    "schedule",
    ["", "linear", "constant:1", "exponential", "exponential:0", "exponential:1.1", "exponential:nan",
     "step:0:0.5", "step:5", "step:5:0.5:1", "cosine:0", "cosine:1.5", "cosine:x"],
)  # fmt: skip
def test_another_schedule_is_refused_with_the_forms_there_are(schedule):
    with pytest.raises(ParameterError, match=r"schedule is .*, expected constant"):
        built_in("softmax", 12, 4, {"schedule": schedule})


def test_training_alone_follows_the_schedule_as_a_member_does():
    scheduled = Softmax(12, 4, schedule="step:1:1e-6", rate=1.0)
    one = train_alone(scheduled, X, Y, (X, Y), 1, 0)
    many = train_alone(scheduled, X, Y, (X, Y), 9, 0)
    assert one.loss == pytest.approx(many.loss, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_train_and_measure_bit_for_bit_as_the_floats_that_they_stand_for(kind):
    model = make(kind, epochs=2, batch=7)
    assert model.takes_pixels
    start = model.initial(np.random.default_rng(0))
    one, two = (model.train(start, images, Y, np.random.default_rng(1)) for images in (PIXELS, X))
    for name in start:
        np.testing.assert_array_equal(one[name], two[name])
    assert model.evaluate(one, PIXELS, Y) == model.evaluate(one, X, Y)


@pytest.mark.parametrize("batch", [1, 7, 90, 200])
def test_how_much_is_gathered_at_once_changes_nothing(batch, monkeypatch):
    model = Softmax(12, 4, batch=batch, epochs=2)
    start = model.initial(np.random.default_rng(0))
    whole = model.train(start, X, Y, np.random.default_rng(1))
    monkeypatch.setattr("choral.learning.descent._GATHER", 100)
    pieces = model.train(start, X, Y, np.random.default_rng(1))
    for name in start:
        np.testing.assert_array_equal(whole[name], pieces[name])
