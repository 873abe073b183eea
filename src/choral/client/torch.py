# ruff: noqa: N803  (X is a matrix, and is written so)
"""A PyTorch module as trainer (extra `choral[torch]`).

    trainer = TorchTrainer(Net, lambda parameters: torch.optim.SGD(parameters, lr=0.1), epochs=2)
    participate("fed/member-1", "client_1_data.npy", trainer)

What is in the federation (docs/decisions/0027-buffers.md):

- every parameter that requires a gradient; one that does not (a frozen backbone) stays what it is and
  is not sent;
- the running mean and variance of PyTorch's own normalisations: they are averaged as the weights are,
  because the averaged weights are of no use without them. A member that sees few classes pulls them its
  way; to keep them at home, `Personal(trainer, "*running_*")`, or all of the layer with
  `Personal(trainer, "norm.*")`. A normalisation whose weight and bias are frozen is a constant;
- no other buffer: a mask, a table of positions or a count is put back to what it was made as before every
  training. A buffer of floats that training changes is refused until `buffers` says what it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from choral.client.torch_losses import RIGHT, count, fitting, kind_of
from choral.errors import ParameterError, UpdateError
from choral.learning.trainer import Evaluation, Examples, Labels, Parameters

_BLOCK = 1024  # examples measured at once
_Norm = nn.modules.batchnorm._NormBase


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
        loss: mean loss of a batch, from the module's output and the labels. With a binary cross entropy, or
            a loss of numbers such as `nn.MSELoss()`, the module gives one output an example, and labels
            become floats of its shape.
        right: which examples of a batch are answered right, bool (n,), from output and labels. By default
            what PyTorch's own losses mean: the largest of several outputs, a single one on the right side of
            a half; nothing for a loss of numbers, nor for a loss of your own.
        loader: instead of `batch`, what makes the batches: from a data set of (example, label), as
            `lambda data: DataLoader(data, 32, shuffle=True)`.
        device: where the module is trained.
        threads: that PyTorch computes with while this trains or measures. By default a quarter of the cores,
            so that some members and an aggregator on one machine do not fight for them; never more than
            PyTorch has outside, say by OMP_NUM_THREADS.
        buffers: by shell pattern of their names, which buffers are in the federation (True) and which are
            put back to what they were made as before every training (False).

    Raises:
        ParameterError: a module without anything to train, or with arrays that cannot be averaged.
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
        loss: Callable[[Any, Any], Any] = functional.cross_entropy,
        right: Callable[[Any, Any], Any] | None = None,
        loader: Callable[[Dataset[Any]], Iterable[Any]] | None = None,
        device: str = "cpu",
        threads: int | None = None,
        buffers: Mapping[str, bool] | None = None,
    ) -> None:
        self._make = module
        self._optimiser = optimiser
        self._shape = shape
        self._epochs = epochs
        self._batch = batch
        self._loss = loss
        self._kind = kind_of(loss)
        self._right = right or RIGHT.get(self._kind)
        self._loader = loader
        self._device = device
        self._threads = threads
        self._buffers = dict(buffers or {})
        # what is made and not sent, such as random features, has to be the same at every member
        self.module = self._made(np.random.default_rng(0))
        self.module.to(device)
        self._check()
        self._constants = {name: buffer.clone() for name, buffer in self._unshared()}
        given = self._shared(self.module) if isinstance(module, nn.Module) else ()
        self._given = {name: _array(tensor) for name, tensor in given}  # training moves the module itself

    def initial(self, rng: np.random.Generator) -> Parameters:
        """The module as it is made under this generator's seed; a module that was given, as it was.

        Raises:
            ParameterError: a function that gives one and the same module, which may have been trained since.
        """
        if self._given:
            return {name: array.copy() for name, array in self._given.items()}
        made = self._made(rng)
        if made is self.module:
            raise ParameterError(
                "the module is not made anew, it is the same one every time",
                hint="hand over the module itself, or a function that makes one, as its class does",
            )
        return {name: _array(tensor) for name, tensor in self._shared(made)}

    def train(self, parameters: Parameters, X: Examples, y: Labels, rng: np.random.Generator) -> Parameters:
        """Local training; X float32 or uint8 (n, features), y integer (n,).

        Raises:
            UpdateError: arrays of another module.
            ParameterError: outputs or labels that the loss is not made for; a buffer that training changes.
        """
        self._load(parameters)
        self.module.train()
        for layer in self.module.modules():
            if _is_frozen(layer):
                layer.eval()
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        optimiser = self._optimiser(iter(trained))
        images, labels = self._tensors(X, y)
        with _threads(self._threads), _seeded(rng) as order:
            for _ in range(self._epochs):
                for batch, targets in self._batches(images, labels, order):
                    optimiser.zero_grad()
                    loss, _ = self._measured(batch, targets)
                    loss.backward()
                    optimiser.step()
        self._check_constants()
        return {name: _array(tensor) for name, tensor in self._shared(self.module)}

    def evaluate(self, parameters: Parameters, X: Examples, y: Labels) -> Evaluation:
        """Right answers, if there is such a thing, and the loss as summed over the examples.

        Raises as `train` does.
        """
        self._load(parameters)
        self.module.eval()
        images, labels = self._tensors(X, y)
        total = Evaluation(0, 0, 0.0)
        with torch.no_grad(), _threads(self._threads):
            for start in range(0, len(labels), _BLOCK):
                some = labels[start : start + _BLOCK]
                loss, output = self._measured(self._examples(images[start : start + _BLOCK]), some)
                correct = 0
                if self._right is not None:
                    correct = count(self._right(output, some.to(self._device)), len(some))
                total += Evaluation(len(some), correct, float(loss) * len(some), self._right is not None)
        return total

    def _made(self, rng: np.random.Generator) -> nn.Module:
        if isinstance(self._make, nn.Module):
            return self._make
        with _seeded(rng):
            return self._make()

    def _measured(self, batch: Any, targets: Any) -> tuple[Any, Any]:
        """Mean loss and output of a batch."""
        output = self.module(batch.to(self._device))
        loss = self._loss(output, fitting(self._kind, output, targets.to(self._device)))
        if loss.ndim:
            raise ParameterError(
                f"the loss has shape {tuple(loss.shape)}, expected the mean of a batch",
                hint='reduction="mean"',
            )
        return loss, output

    def _shared(self, module: nn.Module) -> Iterator[tuple[str, Any]]:
        """What is in the federation, by name: what is trained, and buffers that belong to it."""
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                yield name, parameter
        running = {
            id(buffer)
            for layer in module.modules()
            if isinstance(layer, _Norm) and not _is_frozen(layer)
            for buffer in (layer.running_mean, layer.running_var)
        }
        kept = module.state_dict().keys()  # what a module does not save is derived from something else
        for name, buffer in module.named_buffers():
            said = (shared for pattern, shared in self._buffers.items() if fnmatchcase(name, pattern))
            if name in kept and next(said, id(buffer) in running):
                yield name, buffer

    def _unshared(self) -> Iterator[tuple[str, Any]]:
        """The buffers that are saved with the module and not in the federation."""
        shared = {name for name, _ in self._shared(self.module)}
        kept = self.module.state_dict().keys()
        for name, buffer in self.module.named_buffers():
            if name in kept and name not in shared:
                yield name, buffer

    def _load(self, parameters: Parameters) -> None:
        with torch.no_grad():
            for name, tensor in self._shared(self.module):
                array = parameters.get(name)
                if array is None or array.size != tensor.numel():
                    found = f"shape {array.shape}" if array is not None else f"only {sorted(parameters)}"
                    raise UpdateError(f"array {name!r}: found {found}, expected shape {tuple(tensor.shape)}")
                value = torch.from_numpy(np.ascontiguousarray(array))
                tensor.copy_(value.reshape(tensor.shape))
                if name.endswith("running_var"):
                    # a server rule with momentum can step past zero; its root would be NaN
                    tensor.clamp_(min=0)
            for name, buffer in self._unshared():
                if buffer.shape == self._constants[name].shape:
                    buffer.copy_(self._constants[name])

    def _tensors(self, X: Any, y: Any) -> tuple[Any, Any]:
        # torch takes no read-only memory
        return torch.from_numpy(np.require(X, requirements="W")), torch.from_numpy(np.array(y, np.int64))

    def _examples(self, images: Any) -> Any:
        floats = images.to(torch.float32) / 255 if images.dtype == torch.uint8 else images
        try:
            return floats.reshape(len(images), *self._shape)
        except RuntimeError as error:
            raise ParameterError(
                f"examples of {images.shape[1]} values do not have the shape {self._shape}",
                hint="shape= is that of one example, such as (1, 28, 28)",
            ) from error

    def _batches(self, images: Any, labels: Any, order: Any) -> Iterator[tuple[Any, Any]]:
        if self._loader is not None:
            yield from self._loader(TensorDataset(self._examples(images), labels))
            return
        rows = list(torch.split(torch.randperm(len(labels), generator=order), self._batch))
        if len(rows) > 1 and len(rows[-1]) == 1:
            rows[-2:] = [torch.cat(rows[-2:])]
        for some in rows:
            yield self._examples(images[some]), labels[some]

    def _check(self) -> None:
        name = type(self.module).__name__
        if any(
            nn.parameter.is_lazy(tensor) for tensor in (*self.module.parameters(), *self.module.buffers())
        ):
            raise ParameterError(
                f"{name} has sizes that it does not know yet", hint="Linear instead of LazyLinear"
            )
        if not any(parameter.requires_grad for parameter in self.module.parameters()):
            raise ParameterError(
                f"no parameter of {name} requires a gradient",
                hint="a module is frozen by requires_grad = False; leave something to train",
            )
        names = [name for name, _ in self.module.named_buffers()]
        for pattern in self._buffers:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ParameterError(
                    f"no buffer is called {pattern!r}, there are {names}", hint="as in '*_mean'"
                )
        for name, tensor in self._shared(self.module):
            if not tensor.is_floating_point():
                raise ParameterError(
                    f"{name!r} is {tensor.dtype}, expected floats", hint="only floats have a mean"
                )
            if not torch.isfinite(tensor).all():
                raise ParameterError(
                    f"{name!r} holds values that are not finite, which have no mean",
                    hint="a constant is a buffer, or a parameter with requires_grad = False",
                )

    def _check_constants(self) -> None:
        """What training makes of a buffer that is put back is lost: somebody has to have said so."""
        for name, buffer in self._unshared():
            if not buffer.is_floating_point() or any(fnmatchcase(name, pattern) for pattern in self._buffers):
                continue
            before = self._constants[name]
            if buffer.shape != before.shape or not torch.equal(buffer.nan_to_num(), before.nan_to_num()):
                raise ParameterError(
                    f"training changes the buffer {name!r}, which is not in the federation",
                    hint=f"buffers={{{name!r}: True}} averages it, False puts it back before every training",
                )


def _is_frozen(layer: nn.Module) -> bool:
    """A normalisation that belongs to a frozen backbone: it goes on as it was trained."""
    if not isinstance(layer, _Norm) or not layer.affine:
        return False
    return not (layer.weight.requires_grad or layer.bias.requires_grad)


def _array(tensor: Any) -> Any:
    return tensor.detach().to("cpu", torch.float32).numpy().copy()


@contextlib.contextmanager
def _threads(asked: int | None) -> Iterator[None]:
    """PyTorch's threads for a while, in this thread of ours, and as they were afterwards."""
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(asked or min(before, max(1, cores // 4)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
