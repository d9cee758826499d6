"""Natural training: cross-entropy on clean images, no attack. Also the teacher that is not adversarial."""

import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.methods.setting import Setting

adversary = None


def objective(
    student: nn.Module, inputs: Tensor, adv_inputs: Tensor, labels: Tensor, setting: Setting
) -> tuple[Tensor, dict[str, Tensor]]:
    """CE(f(x), y)."""
    logits = student(inputs)
    return F.cross_entropy(logits, labels), {"logits": logits}
