"""What surrounds a batch in a training step, the same for every method."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ltsd.losses import Scalar


@dataclass(frozen=True)
class Setting:
    """The hyperparameters and constants of a step; a Scalar may be a float or a 0-d device tensor.

    `log_counts` is [C], the log of the training images of each class; `tail` bool [C], which classes are tail classes;
    `predicted` [C], how many adversarial images the last epoch took for each class (before the first: the class's
    images); `progress` is epoch / epochs in [0, 1); `own` are the method's own knobs; `teacher` is in eval mode and
    takes no gradient.
    """

    log_counts: Tensor
    tail: Tensor
    predicted: Tensor
    progress: float
    softmax_tau: Scalar
    own: Any = None
    teacher: nn.Module | None = None
