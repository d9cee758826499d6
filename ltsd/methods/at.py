"""AT: adversarial training with cross-entropy (Madry et al. 2018, equation 2.1)."""

import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.attacks.pgd import Objective
from ltsd.methods.method import Measurements, Method
from ltsd.methods.step_context import StepContext


def adversary(student: nn.Module, inputs: Tensor, labels: Tensor, context: StepContext) -> Objective:
    """CE(f(x_adv), y), summed so that the attack step of an example does not depend on the batch size."""
    return lambda adv_inputs: F.cross_entropy(
        student(adv_inputs), labels, weight=context.class_weights, reduction="sum"
    )


def objective(
    student: nn.Module, inputs: Tensor, adv_inputs: Tensor, labels: Tensor, context: StepContext
) -> tuple[Tensor, Measurements]:
    """CE(f(x_adv), y), each row with the weight of its class."""
    logits = student(adv_inputs)
    return F.cross_entropy(logits, labels, weight=context.class_weights), {"logits": logits}


METHOD = Method("AT", adversary, objective)
