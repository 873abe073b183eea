"""What a module's output means, by the loss that is taken of it: what is right, what labels look like."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from choral.errors import ParameterError

_CLASSES = {functional.cross_entropy, functional.nll_loss, functional.multi_margin_loss,
            nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss}  # fmt: skip
_LOGIT = {functional.binary_cross_entropy_with_logits, nn.BCEWithLogitsLoss}
_CHANCE = {functional.binary_cross_entropy, nn.BCELoss}
_NUMBER = {functional.mse_loss, functional.l1_loss, functional.smooth_l1_loss, functional.huber_loss,
           nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss}  # fmt: skip


def kind_of(loss: Any) -> str | None:
    """What PyTorch's own losses take for an answer; None for a loss of somebody's own.

    Raises:
        ParameterError: a loss that is no mean.
    """
    reduction = getattr(loss, "reduction", "mean")
    if isinstance(loss, functools.partial):
        reduction, loss = loss.keywords.get("reduction", "mean"), loss.func
    if reduction != "mean":
        raise ParameterError(
            f"the loss has reduction={reduction!r}, expected the mean of a batch", hint='reduction="mean"'
        )
    what = type(loss) if isinstance(loss, nn.Module) else loss
    kinds = {"classes": _CLASSES, "logit": _LOGIT, "chance": _CHANCE, "number": _NUMBER}
    return next((kind for kind, losses in kinds.items() if any(what is one for one in losses)), None)


def fitting(kind: str | None, output: Any, targets: Any) -> Any:
    """The labels as this kind of loss takes them.

    Raises:
        ParameterError: an output or labels that it would misread or fail on.
    """
    if kind is None:
        return targets
    examples, most = len(targets), int(targets.max()) if len(targets) else 0
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if kind == "classes":
        if not isinstance(output, torch.Tensor) or output.ndim != 2 or not max(1, most) < output.shape[1]:
            raise ParameterError(
                f"the module gives {shape} for {examples} examples with labels up to {most};"
                " expected one number a class, (n, classes)",
                hint="one output for two classes goes with loss=nn.BCEWithLogitsLoss(); any other form with a"
                " loss and a right= of your own",
            )
        return targets
    if not isinstance(output, torch.Tensor) or output.numel() != examples:
        raise ParameterError(
            f"the module gives {shape} for {examples} examples; expected one number an example",
            hint="any other form goes with a loss and a right= of your own",
        )
    if kind != "number" and most > 1:
        raise ParameterError(
            f"labels up to {most} for one output; expected 0 and 1",
            hint="one output a class, and cross_entropy",
        )
    return targets.to(output.dtype).reshape(output.shape)


RIGHT: dict[str | None, Callable[[Any, Any], Any]] = {
    "classes": lambda output, labels: output.argmax(dim=1) == labels,
    "logit": lambda output, labels: (output.flatten() > 0) == (labels == 1),
    "chance": lambda output, labels: (output.flatten() > 0.5) == (labels == 1),
}


def count(right: Any, examples: int) -> int:
    """How many of the examples are right.

    Raises:
        ParameterError: not one truth value an example.
    """
    if not isinstance(right, torch.Tensor) or right.dtype != torch.bool or right.shape != (examples,):
        found = (
            f"{right.dtype} {tuple(right.shape)}" if isinstance(right, torch.Tensor) else type(right).__name__
        )
        raise ParameterError(
            f"right gives {found}, expected bool ({examples},)",
            hint="one truth value an example: for several labels an example, (…).all(dim=1)",
        )
    return int(right.sum())
