"""What surrounds a batch in a training step, the same for every method."""

from dataclasses import dataclass

from torch import Tensor, nn

from ltsd.losses import Scalar


@dataclass(frozen=True)
class Setting:
    """The hyperparameters and constants of a step; a Scalar may be a float or a 0-d device tensor.

    `log_counts` is [C], the log of the training images of each class; `progress` is epoch / epochs in [0, 1);
    `teacher` is in eval mode and takes no gradient.
    """

    log_counts: Tensor
    progress: Scalar
    softmax_tau: Scalar
    temperature: Scalar
    kl_weight: Scalar
    igdm_weight: Scalar
    teacher: nn.Module | None = None
