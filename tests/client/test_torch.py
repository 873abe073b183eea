"""A PyTorch module is a trainer: pure, reproducible, and clear about what is shared."""

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


def test_a_module_without_anything_to_train_is_refused():
    with pytest.raises(ParameterError, match="no parameter of Flatten requires a gradient"):
        TorchTrainer(nn.Flatten(), sgd)


def test_training_that_diverges_is_refused_by_name():
    model = TorchTrainer(lambda: nn.Linear(16, 3), lambda p: torch.optim.SGD(p, lr=float("inf")), epochs=5)
    start = model.initial(np.random.default_rng(0))
    trained = model.train(start, X, Y, np.random.default_rng(1))
    with pytest.raises(UpdateError, match="not finite"):
        difference(trained, start, schema_of(start))
