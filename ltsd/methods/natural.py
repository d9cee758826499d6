"""Natural training: cross-entropy on clean images, no attack. Also the teacher that is not adversarial."""

import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.methods.method import Measurements, Method
from ltsd.methods.step_context import StepContext


def adversary(student: nn.Module, inputs: Tensor, labels: Tensor, context: StepContext) -> None:
    """No attack."""


def objective(
    student: nn.Module, inputs: Tensor, adv_inputs: Tensor, labels: Tensor, context: StepContext
) -> tuple[Tensor, Measurements]:
    """CE(f(x), y), each row weighed as its class is."""
    logits = student(inputs)
    return F.cross_entropy(logits, labels, weight=context.class_weights), {"logits": logits}


METHOD = Method("natural", adversary, objective)
