"""A PyTorch module is a trainer: pure, reproducible, and clear about what is shared."""

import functools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install choral[torch]")

from torch import nn  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from choral.client.torch import TorchTrainer  # noqa: E402
from choral.errors import ParameterError, UpdateError  # noqa: E402
from choral.learning import Personal, Softmax  # noqa: E402
from choral.learning.update import difference, schema_of  # noqa: E402

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (65, 16), dtype=np.uint8)
X = PIXELS / np.float32(255)
Y = RNG.integers(0, 3, 65).astype(np.uint8)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.drop(torch.relu(self.norm(self.conv(x)))).flatten(1))


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def trainer(**more):
    return TorchTrainer(Net, sgd, **{"shape": (1, 4, 4), "epochs": 2, "batch": 16, **more})


def same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_weights_and_float_buffers_are_shared_and_integer_buffers_are_not():
    start = trainer().initial(np.random.default_rng(0))
    assert sorted(start) == [
        "conv.bias", "conv.weight", "head.bias", "head.weight",
        "norm.bias", "norm.running_mean", "norm.running_var", "norm.weight",
    ]  # fmt: skip
    assert {array.dtype for array in start.values()} == {np.dtype(np.float32)}


def test_the_running_statistics_come_back_as_trained():
    model = trainer()
    start = model.initial(np.random.default_rng(0))
    trained = model.train(start, X, Y, np.random.default_rng(1))
    update = difference(trained, start, schema_of(start))
    assert np.isfinite(update).all()
    for name in ("norm.running_mean", "norm.running_var"):
        assert not np.array_equal(trained[name], start[name])


def test_a_training_follows_its_generator_and_nothing_else():
    one, two = trainer(), trainer()
    start = one.initial(np.random.default_rng(0))
    same(start, two.initial(np.random.default_rng(0)))
    torch.manual_seed(1)
    first = one.train(start, X, Y, np.random.default_rng(1))
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    one.train(start, X, Y, np.random.default_rng(9))  # leaves nothing behind that matters
    assert torch.equal(state, torch.random.get_rng_state())
    same(first, one.train(start, X, Y, np.random.default_rng(1)))
    same(first, two.train(start, X, Y, np.random.default_rng(1)))
    other = two.train(start, X, Y, np.random.default_rng(2))
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_what_it_is_handed_stays_as_it_was():
    model = trainer()
    start = model.initial(np.random.default_rng(0))
    before = {name: array.copy() for name, array in start.items()}
    trained = model.train(start, X, Y, np.random.default_rng(1))
    model.evaluate(trained, X, Y)
    same(start, before)
    kept = {name: array.copy() for name, array in trained.items()}
    model.train(start, X, Y, np.random.default_rng(2))
    same(trained, kept)


def test_pixels_are_the_floats_that_they_stand_for_also_from_memory_that_cannot_be_written():
    model = trainer()
    start = model.initial(np.random.default_rng(0))
    locked = PIXELS.copy()
    locked.flags.writeable = False
    same(*(model.train(start, images, Y, np.random.default_rng(1)) for images in (X, locked)))
    assert model.evaluate(start, X, Y) == model.evaluate(start, locked, Y)


@pytest.mark.parametrize("batch", [64, 16, 1])
def test_a_batch_of_one_does_not_stop_a_batch_normalisation(batch):
    """65 examples leave one over; batches of one are joined only at the end, so those have no norm."""
    model = TorchTrainer(lambda: nn.Linear(16, 3), sgd, batch=1) if batch == 1 else trainer(batch=batch)
    model.train(model.initial(np.random.default_rng(0)), X, Y, np.random.default_rng(1))


def test_it_agrees_with_the_numpy_model_on_one_step():
    numpy, rate = Softmax(16, 3, batch=65, rate=0.3), 0.3
    linear = TorchTrainer(lambda: nn.Linear(16, 3), lambda p: torch.optim.SGD(p, lr=rate), batch=65)
    zeros = {"weight": np.zeros((3, 16), np.float32), "bias": np.zeros(3, np.float32)}
    a = numpy.train(numpy.initial(np.random.default_rng(0)), X, Y, np.random.default_rng(1))
    b = linear.train(zeros, X, Y, np.random.default_rng(1))
    np.testing.assert_allclose(a["weight"], b["weight"].T, atol=1e-6)
    np.testing.assert_allclose(a["bias"], b["bias"], atol=1e-6)
    one, two = numpy.evaluate(a, X, Y), linear.evaluate(b, X, Y)
    assert (one.examples, one.correct) == (two.examples, two.correct)
    assert one.loss == pytest.approx(two.loss, rel=1e-5)


def test_a_frozen_backbone_is_neither_moved_nor_sent():
    net = Net()
    for parameter in net.conv.parameters():
        parameter.requires_grad_(requires_grad=False)
    before = net.conv.weight.detach().clone()
    model = TorchTrainer(net, sgd, shape=(1, 4, 4))
    start = model.initial(np.random.default_rng(0))
    assert not any(name.startswith("conv.") for name in start)
    np.testing.assert_array_equal(start["head.weight"], net.head.weight.detach().numpy())
    model.train(start, X, Y, np.random.default_rng(1))
    assert torch.equal(model.module.conv.weight, before)


def test_a_module_that_was_given_begins_where_it_was_also_after_training():
    net = Net()
    model = TorchTrainer(net, sgd, shape=(1, 4, 4))
    start = model.initial(np.random.default_rng(0))
    trained = model.train(start, X, Y, np.random.default_rng(1))
    assert not np.array_equal(trained["head.weight"], start["head.weight"])
    same(model.initial(np.random.default_rng(0)), start)
    with pytest.raises(ParameterError, match="the same one every time"):
        TorchTrainer(lambda: net, sgd, shape=(1, 4, 4)).initial(np.random.default_rng(0))


def test_a_personal_head_and_a_personal_normalisation_stay_at_home():
    model = Personal(trainer(), "head.*", "norm.*")
    start = model.initial(np.random.default_rng(0))
    assert sorted(start) == ["conv.bias", "conv.weight"]
    losses = [model.evaluate(start, X, Y).loss]
    for seed in range(4):
        start = model.train(start, X, Y, np.random.default_rng(seed))
        losses.append(model.evaluate(start, X, Y).loss)
    assert losses[-1] < losses[0]


def test_a_loader_of_ones_own_makes_the_batches_reproducibly():
    sizes = []

    def loader(data):
        for batch in DataLoader(data, 20, shuffle=True):
            sizes.append(len(batch[1]))
            yield batch

    model = trainer(loader=loader, epochs=1)
    start = model.initial(np.random.default_rng(0))
    same(*(model.train(start, X, Y, np.random.default_rng(1)) for _ in range(2)))
    assert sizes == [20, 20, 20, 5] * 2


def test_a_negative_variance_from_a_server_rule_does_not_poison_the_model():
    model = trainer()
    start = model.initial(np.random.default_rng(0))
    start["norm.running_var"] -= 5
    assert np.isfinite(model.evaluate(start, X, Y).loss)


def test_weights_in_other_precisions_travel_as_float32():
    model = TorchTrainer(
        lambda: nn.Linear(16, 3).double(), sgd, loader=lambda d: [(d.tensors[0].double(), d.tensors[1])]
    )
    start = model.initial(np.random.default_rng(0))
    assert start["weight"].dtype == np.float32
    trained = model.train(start, X, Y, np.random.default_rng(1))
    assert trained["weight"].dtype == np.float32
    assert model.module.weight.dtype == torch.float64


# What the figures say

TWO = (Y == 1).astype(np.uint8)


def one_output(right):
    """A model that is right in the examples that `right` names, with one output an example."""

    def build(scale, shift):
        class Known(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.tensor(float(scale)))

            def forward(self, x):
                answer = torch.from_numpy(np.where(right, TWO, 1 - TWO).astype(np.float32))
                return (self.scale * answer[: len(x)] + shift)[:, None]

        return Known

    return build


HALF = np.arange(65) % 2 == 0


@pytest.mark.parametrize(
    ("loss", "scale", "shift"),
    [
        (nn.functional.binary_cross_entropy_with_logits, 4, -2),
        (nn.BCEWithLogitsLoss(), 4, -2),
        (
            functools.partial(nn.functional.binary_cross_entropy_with_logits, pos_weight=torch.tensor(2.0)),
            4,
            -2,
        ),
        (nn.BCELoss(), 0.6, 0.2),
        (nn.functional.binary_cross_entropy, 0.6, 0.2),
    ],
)
def test_a_single_output_is_right_on_its_side_of_a_half(loss, scale, shift):
    model = TorchTrainer(one_output(HALF)(scale, shift), sgd, loss=loss)
    measured = model.evaluate(model.initial(np.random.default_rng(0)), X, TWO)
    assert (measured.examples, measured.correct, measured.classified) == (65, 33, True)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(label_smoothing=0.1),
        functools.partial(nn.functional.cross_entropy, label_smoothing=0.1),
        nn.MultiMarginLoss(),
    ],
)
def test_of_several_outputs_the_largest_is_the_answer(loss):
    model = TorchTrainer(lambda: nn.Linear(16, 3), sgd, loss=loss)
    start = model.initial(np.random.default_rng(0))
    measured = model.evaluate(start, X, Y)
    assert measured.correct == ((X @ start["weight"].T + start["bias"]).argmax(axis=1) == Y).sum()


@pytest.mark.parametrize(
    ("outputs", "loss"),
    [
        (1, nn.MSELoss()),
        (1, lambda output, y: ((output[:, 0] - y) ** 2).mean()),
        (3, lambda output, y: ((output.mean(dim=1) - y) ** 2).mean()),
    ],
)
def test_what_nobody_can_call_right_is_not_called_right(outputs, loss):
    model = TorchTrainer(lambda: nn.Linear(16, outputs), sgd, loss=loss)
    start = model.initial(np.random.default_rng(0))
    measured = model.evaluate(start, X, Y)
    assert (measured.correct, measured.classified, math.isnan(measured.accuracy)) == (0, False, True)
    answers = (X @ start["weight"].T + start["bias"]).mean(axis=1)
    assert measured.mean_loss == pytest.approx(((answers - Y) ** 2).mean(), rel=1e-4)


def test_a_right_of_ones_own_counts_what_it_says():
    """Three labels in the bits of one: an example is right if all of them are."""

    def bits(y):
        return torch.stack([y & 1, y >> 1 & 1], dim=1)

    model = TorchTrainer(
        lambda: nn.Linear(16, 2),
        sgd,
        loss=lambda output, y: nn.functional.binary_cross_entropy_with_logits(output, bits(y).float()),
        right=lambda output, y: ((output > 0) == bits(y).bool()).all(dim=1),
    )
    start = model.initial(np.random.default_rng(0))
    positive = X @ start["weight"].T + start["bias"] > 0
    expected = ((positive[:, 0] == (Y & 1)) & (positive[:, 1] == (Y >> 1))).sum()
    assert model.evaluate(start, X, Y).correct == expected


@pytest.mark.parametrize(
    ("outputs", "more", "labels", "found"),
    [
        (1, {}, Y, r"gives \(65, 1\) for 65 examples with labels up to 2; expected"),
        (2, {}, Y, "expected one number a class"),
        (3, {"loss": nn.BCEWithLogitsLoss()}, TWO, r"gives \(65, 3\) for 65 examples; expected"),
        (1, {"loss": nn.BCEWithLogitsLoss()}, Y, "labels up to 2 for one output"),
        (3, {"loss": nn.MSELoss()}, Y, "expected one number an example"),
        (3, {"loss": lambda output, y: output.sum(dim=1)}, Y, r"the loss has shape \(65,\)"),
        (3, {"right": lambda output, y: output.argmax(1)}, Y, r"right gives torch.int64 \(65,\)"),
        (3, {"right": lambda output, y: output > 0}, Y, r"right gives torch.bool \(65, 3\)"),
        (3, {"right": lambda output, y: 5}, Y, "right gives int"),
    ],
)  # fmt: skip
def test_outputs_that_do_not_fit_the_loss_are_refused_and_never_counted(outputs, more, labels, found):
    model = TorchTrainer(lambda: nn.Linear(16, outputs), sgd, **more)
    with pytest.raises(ParameterError, match=found) as caught:
        model.evaluate(model.initial(np.random.default_rng(0)), X, labels)
    assert caught.value.hint


@pytest.mark.parametrize(
    "loss",
    [nn.CrossEntropyLoss(reduction="sum"), functools.partial(nn.functional.mse_loss, reduction="none")],
)
def test_a_loss_that_is_no_mean_is_refused_when_the_trainer_is_made(loss):
    with pytest.raises(ParameterError, match="expected the mean of a batch"):
        TorchTrainer(Net, sgd, loss=loss)


def test_examples_that_have_not_the_shape_are_refused_with_the_argument():
    model = trainer(shape=(1, 5, 5))
    with pytest.raises(ParameterError, match="examples of 16 values") as caught:
        model.evaluate(model.initial(np.random.default_rng(0)), X, Y)
    assert "shape=" in caught.value.hint


# Buffers


class WithConstants(nn.Module):
    """A mask of minus infinity, a table of positions, random features, and buffers that training changes."""

    def __init__(self, *, counts=False):
        super().__init__()
        self.features = nn.Linear(16, 3)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("mask", torch.full((3,), -math.inf))
        self.register_buffer("positions", torch.sin(torch.arange(16.0)))
        self.register_buffer("random", torch.randn(16))
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("derived", torch.zeros(3), persistent=False)
        self.counts = counts

    def forward(self, x):
        self.calls += 1
        if self.counts:
            self.seen += 1
        self.derived += 1
        return self.norm(self.features(x + self.positions + self.random))


def test_constants_are_neither_sent_nor_changed_and_are_the_same_at_every_member():
    torch.manual_seed(1)
    one = TorchTrainer(WithConstants, sgd)
    torch.manual_seed(2)
    two = TorchTrainer(WithConstants, sgd)
    start = one.initial(np.random.default_rng(0))
    assert sorted(start) == [
        "features.bias", "features.weight",
        "norm.bias", "norm.running_mean", "norm.running_var", "norm.weight",
    ]  # fmt: skip
    same(*(model.train(start, X, Y, np.random.default_rng(1)) for model in (one, two)))
    assert torch.equal(one.module.random, two.module.random)
    assert torch.isneginf(one.module.mask).all()


def test_a_count_begins_anew_so_that_a_training_does_not_depend_on_those_before():
    """A normalisation without momentum weighs by how many batches it has ever seen."""

    def build():
        return nn.Sequential(nn.Linear(16, 3), nn.BatchNorm1d(3, momentum=None))

    one, two = TorchTrainer(build, sgd), TorchTrainer(build, sgd)
    start = one.initial(np.random.default_rng(0))
    one.train(start, X, Y, np.random.default_rng(5))
    same(*(model.train(start, X, Y, np.random.default_rng(1)) for model in (one, two)))


def test_a_buffer_that_training_changes_is_refused_until_somebody_says_what_it_is():
    def build():
        return WithConstants(counts=True)

    model = TorchTrainer(build, sgd)
    start = model.initial(np.random.default_rng(0))
    with pytest.raises(ParameterError, match="training changes the buffer 'seen'") as caught:
        model.train(start, X, Y, np.random.default_rng(1))
    assert "buffers={'seen': True}" in caught.value.hint
    shared = TorchTrainer(build, sgd, buffers={"se*": True})
    trained = shared.train(shared.initial(np.random.default_rng(0)), X, Y, np.random.default_rng(1))
    assert trained["seen"].tolist() == [2.0] * 3
    apart = TorchTrainer(build, sgd, buffers={"seen": False, "*running*": False})
    assert not {"seen", "norm.running_mean"} & set(apart.initial(np.random.default_rng(0)))
    for _ in range(2):
        apart.train(start, X, Y, np.random.default_rng(1))
        assert apart.module.seen.tolist() == [2.0] * 3


@pytest.mark.parametrize(
    ("build", "more", "found"),
    [
        (WithConstants, {"buffers": {"mask": True}}, "'mask' holds values that are not finite"),
        (WithConstants, {"buffers": {"calls": True}}, "'calls' is torch.int64, expected floats"),
        (WithConstants, {"buffers": {"none": True}}, "no buffer is called 'none'"),
        (lambda: nn.LazyLinear(3), {}, "LazyLinear has sizes that it does not know yet"),
    ],
)
def test_arrays_without_a_mean_are_refused_when_the_trainer_is_made(build, more, found):
    with pytest.raises(ParameterError, match=found):
        TorchTrainer(build, sgd, **more)


def test_the_normalisation_of_a_frozen_backbone_goes_on_as_it_was_trained():
    net = Net()
    for parameter in (*net.conv.parameters(), *net.norm.parameters()):
        parameter.requires_grad_(requires_grad=False)
    net.norm.running_mean += 3
    model = TorchTrainer(net, sgd, shape=(1, 4, 4))
    start = model.initial(np.random.default_rng(0))
    assert sorted(start) == ["head.bias", "head.weight"]
    model.train(start, X, Y, np.random.default_rng(1))
    assert model.module.norm.running_mean.tolist() == [3.0] * 4


def test_arrays_of_another_module_are_refused_by_name():
    model = trainer()
    start = model.initial(np.random.default_rng(0))
    for wrong in ({}, {**start, "head.bias": np.zeros(4, np.float32)}):
        with pytest.raises(UpdateError, match="array '"):
            model.train(wrong, X, Y, np.random.default_rng(1))


# Threads


@pytest.mark.parametrize(
    ("outside", "cores", "asked", "inside"), [(8, 8, None, 2), (8, 2, None, 1), (1, 8, None, 1), (8, 8, 5, 5)]
)
def test_some_members_on_one_machine_do_not_fight_for_its_cores(monkeypatch, outside, cores, asked, inside):
    now, seen = [outside], []
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: now.__setitem__(0, threads))
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)), raising=False)

    def loss(output, labels):
        seen.append(now[0])
        return nn.functional.cross_entropy(output, labels)

    model = trainer(threads=asked, loss=loss)
    start = model.initial(np.random.default_rng(0))
    model.train(start, X, Y, np.random.default_rng(1))
    model.evaluate(start, X, Y)
    assert set(seen) == {inside}
    assert now == [outside]


def test_a_module_without_anything_to_train_is_refused():
    with pytest.raises(ParameterError, match="no parameter of Flatten requires a gradient"):
        TorchTrainer(nn.Flatten(), sgd)


def test_training_that_diverges_is_refused_by_name():
    model = TorchTrainer(lambda: nn.Linear(16, 3), lambda p: torch.optim.SGD(p, lr=float("inf")), epochs=5)
    start = model.initial(np.random.default_rng(0))
    trained = model.train(start, X, Y, np.random.default_rng(1))
    with pytest.raises(UpdateError, match="not finite"):
        difference(trained, start, schema_of(start))
