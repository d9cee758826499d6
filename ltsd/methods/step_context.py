"""The context of a training step, the same for every method."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from ltsd.losses import Scalar


@dataclass(frozen=True)
class StepContext:
    """The hyperparameters and constants of a step; a Scalar may be a float or a 0-d device tensor.

    `log_counts` is [C], the log of the training labels of each class, and of a detector's background as its task says;
    `tail` bool [C], the tail classes; `predicted` [C], the adversarial rows that the last epoch assigned to each class
    (before the first epoch, the class's labels); `progress` is epoch / epochs in [0, 1); `class_weights` [C] weigh the
    rows of each class, None for all alike; `own` are the method's own knobs, see `on_device`; `phase` comes from the
    method's `phase`, and is the only number that it may branch on; `teacher` is in eval mode and takes no gradient.
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
    """Return a method's knobs with every float as a 0-d float32 device tensor, which a recorded step reads anew."""
    if own is None:
        return None
    numbers = {knob.name: getattr(own, knob.name) for knob in fields(own)}
    tensors = {name: torch.tensor(number, device=device) for name, number in numbers.items() if type(number) is float}
    return replace(own, **tensors)
