"""Natural training: cross-entropy on clean images, no attack. It also trains the teacher if `teacher.adversarial` is
false.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.methods.method import Measurements, Method
from ltsd.methods.step_context import StepContext


def adversary(student: nn.Module, inputs: Tensor, labels: Tensor, context: StepContext) -> None:
    """No attack."""


def objective(
    student: nn.Module, inputs: Tensor, adv_inputs: Tensor, labels: Tensor, context: StepContext
) -> tuple[Tensor, Measurements]:
    """CE(f(x), y), each row with the weight of its class."""
    logits = student(inputs)
    return F.cross_entropy(logits, labels, weight=context.class_weights), {"logits": logits}


METHOD = Method("natural", adversary, objective)
