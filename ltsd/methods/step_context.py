"""The context of a training step, the same for every method."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from ltsd.losses import Scalar


@dataclass(frozen=True)
class StepContext:
    """The hyperparameters and constants of a step; a Scalar may be a float or a 0-d device tensor.

    Attributes:
        log_counts: [C], the logarithm of the number of training labels of each class; for a detector also of the
            background, see `row_counts` of `ltsd.tasks.task.Task`.
        tail: bool [C], the tail classes.
        predicted: [C], how many adversarial rows the model assigned to each class in the last epoch; before the first
            epoch, the number of labels.
        progress: epoch / epochs, in [0, 1).
        softmax_tau: exponent of the class prior in the balanced softmax.
        class_weights: [C], the weight of the rows of each class; None for equal weights.
        own: the method's own knobs, see `on_device`.
        phase: the value of the method's `phase`, the only number that the method may branch on.
        teacher: in eval mode, without gradients; None if the method needs none.
    """

    log_counts: Tensor
    tail: Tensor
    predicted: Tensor
    progress: Scalar
    softmax_tau: Scalar
    class_weights: Tensor | None = None
    own: Any = None
    phase: int = 0
    teacher: nn.Module | None = None


def on_device(own: Any, device: torch.device) -> Any:
    """Return a method's knobs with every float as a 0-d float32 device tensor.

    A CUDA graph reads a tensor at every replay, but keeps the value that a Python float had when it was recorded.
    """
    if own is None:
        return None
    numbers = {knob.name: getattr(own, knob.name) for knob in fields(own)}
    tensors = {name: torch.tensor(number, device=device) for name, number in numbers.items() if type(number) is float}
    return replace(own, **tensors)
