"""Natural training: cross-entropy on clean images, no attack. Also the teacher that is not adversarial."""

import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.methods.method import Measurements, Method
from ltsd.methods.setting import Setting


def adversary(student: nn.Module, inputs: Tensor, labels: Tensor, setting: Setting) -> None:
    """No attack."""


def objective(
    student: nn.Module, inputs: Tensor, adv_inputs: Tensor, labels: Tensor, setting: Setting
) -> tuple[Tensor, Measurements]:
    """CE(f(x), y)."""
    logits = student(inputs)
    return F.cross_entropy(logits, labels), {"logits": logits}


METHOD = Method("natural", adversary, objective)
