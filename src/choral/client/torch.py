# ruff: noqa: N803  (X is a matrix, and is written so)
"""A PyTorch module as trainer (extra `choral[torch]`).

    trainer = TorchTrainer(Net, lambda parameters: torch.optim.SGD(parameters, lr=0.1), epochs=2)
    participate("fed/member-1", "client_1_data.npy", trainer)

What is in the federation:

- every parameter that requires a gradient; one that does not (a frozen backbone) stays what it is and
  is not sent;
- every buffer of floats: the running mean and variance of a batch normalisation are averaged as the
  weights are, because the averaged weights are of no use without them. A member that sees few classes
  pulls them its way; to keep them at home, `Personal(trainer, "*running_*")`, or all of the layer with
  `Personal(trainer, "norm.*")`;
- no buffer of integers: a count such as `num_batches_tracked` has no mean, and stays with the member.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from choral.errors import ParameterError
from choral.learning.trainer import Evaluation, Examples, Labels, Parameters

_BLOCK = 1024  # examples measured at once


class TorchTrainer:
    """A module, an optimiser and a way through the examples.

    The same generator gives the same arrays on one machine: the module's beginning, the order of the
    examples and dropout all follow it. On a GPU, `torch.use_deterministic_algorithms(True)` is needed too.

    Args:
        module: makes the module, as its class does; or a module, say a pretrained one, that all begin from.
        optimiser: makes the optimiser from the parameters; a new one for every training.
        shape: of one example as the module takes it, e.g. (1, 28, 28); by default flat, as in the shard.
        epochs: passes over the examples.
        batch: examples a step. A last batch of one joins the one before: no variance is in a single example.
        loss: mean loss of a batch, from the module's output and the labels.
        loader: instead of `batch`, what makes the batches: from a data set of (example, label), as
            `lambda data: DataLoader(data, 32, shuffle=True)`.
        device: where the module is trained.

    Raises:
        ParameterError: a module without anything to train.
    """

    takes_pixels = True

    def __init__(
        self,
        module: nn.Module | Callable[[], nn.Module],
        optimiser: Callable[[Iterator[Any]], Any],
        *,
        shape: tuple[int, ...] = (-1,),
        epochs: int = 1,
        batch: int = 32,
        loss: Callable[[Any, Any], Any] = nn.functional.cross_entropy,
        loader: Callable[[Dataset[Any]], Iterable[Any]] | None = None,
        device: str = "cpu",
    ) -> None:
        self._make = module
        self._optimiser = optimiser
        self._shape = shape
        self._epochs = epochs
        self._batch = batch
        self._loss = loss
        self._loader = loader
        self._device = device
        self.module: nn.Module = module if isinstance(module, nn.Module) else module()
        self.module.to(device)
        self._check(self.module)

    def initial(self, rng: np.random.Generator) -> Parameters:
        """The module as it is made under this generator's seed; a module that was given, as it is."""
        with _seeded(rng):
            made = self._make if isinstance(self._make, nn.Module) else self._make()
        return {name: _array(tensor) for name, tensor in _shared(made)}

    def train(self, parameters: Parameters, X: Examples, y: Labels, rng: np.random.Generator) -> Parameters:
        """Local training; X float32 or uint8 (n, features), y integer (n,).

        Raises:
            UpdateError: arrays of another module.
        """
        self._load(parameters)
        self.module.train()
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        optimiser = self._optimiser(iter(trained))
        images, labels = self._tensors(X, y)
        with _seeded(rng) as order:
            for _ in range(self._epochs):
                for batch, targets in self._batches(images, labels, order):
                    optimiser.zero_grad()
                    loss = self._loss(self.module(batch.to(self._device)), targets.to(self._device))
                    loss.backward()
                    optimiser.step()
        return {name: _array(tensor) for name, tensor in _shared(self.module)}

    def evaluate(self, parameters: Parameters, X: Examples, y: Labels) -> Evaluation:
        """Correct predictions, and the loss as summed over the examples. Raises as `train` does."""
        self._load(parameters)
        self.module.eval()
        images, labels = self._tensors(X, y)
        total = Evaluation(0, 0, 0.0)
        with torch.no_grad():
            for start in range(0, len(labels), _BLOCK):
                targets = labels[start : start + _BLOCK].to(self._device)
                output = self.module(self._examples(images[start : start + _BLOCK]).to(self._device))
                correct = int((output.argmax(dim=1) == targets).sum())
                loss = float(self._loss(output, targets)) * len(targets)
                total += Evaluation(len(targets), correct, loss)
        return total

    def _load(self, parameters: Parameters) -> None:
        with torch.no_grad():
            for name, tensor in _shared(self.module):
                value = torch.from_numpy(np.ascontiguousarray(parameters[name]))
                tensor.copy_(value.reshape(tensor.shape))
                if name.endswith("running_var"):
                    tensor.clamp_(
                        min=0
                    )  # a server rule with momentum can step past zero; its root would be NaN

    def _tensors(self, X: Any, y: Any) -> tuple[Any, Any]:
        # torch takes no read-only memory
        return torch.from_numpy(np.require(X, requirements="W")), torch.from_numpy(np.array(y, np.int64))

    def _examples(self, images: Any) -> Any:
        floats = images.to(torch.float32) / 255 if images.dtype == torch.uint8 else images
        return floats.reshape(len(images), *self._shape)

    def _batches(self, images: Any, labels: Any, order: Any) -> Iterator[tuple[Any, Any]]:
        if self._loader is not None:
            yield from self._loader(TensorDataset(self._examples(images), labels))
            return
        rows = list(torch.randperm(len(labels), generator=order).split(self._batch))
        if len(rows) > 1 and len(rows[-1]) == 1:
            rows[-2:] = [torch.cat(rows[-2:])]
        for some in rows:
            yield self._examples(images[some]), labels[some]

    @staticmethod
    def _check(module: nn.Module) -> None:
        if not any(parameter.requires_grad for parameter in module.parameters()):
            raise ParameterError(
                f"no parameter of {type(module).__name__} requires a gradient",
                hint="a module is frozen by requires_grad = False; leave something to train",
            )
        for name, tensor in _shared(module):
            if tensor.is_complex():
                raise ParameterError(f"{name!r} is {tensor.dtype}, expected floats")


def _shared(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """What is in the federation, by name: what is trained, and buffers of floats."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            yield name, parameter
    kept = module.state_dict().keys()  # a buffer that a module does not save is derived from something else
    for name, buffer in module.named_buffers():
        if name in kept and (buffer.is_floating_point() or buffer.is_complex()):
            yield name, buffer


def _array(tensor: Any) -> Any:
    return tensor.detach().to("cpu", torch.float32).numpy().copy()


class _seeded:  # noqa: N801  (used as a function is)
    """Torch's own randomness from a generator, and as it was before afterwards. Gives one for orders."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._seeds = [int(seed) for seed in rng.integers(0, 2**63, 2)]
        self._fork = torch.random.fork_rng()

    def __enter__(self) -> Any:
        self._fork.__enter__()
        torch.manual_seed(self._seeds[0])
        return torch.Generator().manual_seed(self._seeds[1])

    def __exit__(self, *error: Any) -> None:
        self._fork.__exit__(*error)
