"""TRADES: clean cross-entropy plus the KL divergence between clean and adversarial answers (Zhang et al. 2019)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.attacks.pgd import Objective
from ltsd.knobs import Range, knob
from ltsd.losses import divergence
from ltsd.methods.method import Measurements, Method
from ltsd.methods.step_context import StepContext


@dataclass(frozen=True)
class Trades:
    """The trade-off between clean accuracy and robustness."""

    beta: float = knob(6.0, "weight of the divergence: 1 / lambda of the paper", at_least=0, search=Range(1.0, 12.0))


def adversary(student: nn.Module, inputs: Tensor, labels: Tensor, context: StepContext) -> Objective:
    """KL(p(x) || p(x_adv)), summed. The attack must not start at x, where the gradient is 0."""
    with torch.no_grad():
        clean_logits = student(inputs)
    return lambda adv_inputs: divergence(clean_logits, student(adv_inputs)).sum()


def objective(
    student: nn.Module, inputs: Tensor, adv_inputs: Tensor, labels: Tensor, context: StepContext
) -> tuple[Tensor, Measurements]:
    """CE(f(x), y) + beta KL(p(x) || p(x_adv)) (equation 5); the gradient flows through both answers."""
    own: Trades = context.own
    clean_logits, logits = student(inputs), student(adv_inputs)
    natural = F.cross_entropy(clean_logits, labels)
    robust = divergence(clean_logits, logits).mean()
    return natural + own.beta * robust, {"logits": logits, "natural_loss": natural, "robust_loss": robust}


METHOD = Method("TRADES", adversary, objective, knobs=("trades", Trades), start="gaussian")
