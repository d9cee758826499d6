"""MART: misclassification-aware adversarial training (Wang et al. 2020)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.knobs import Range, knob
from ltsd.losses import divergence
from ltsd.methods.at import adversary
from ltsd.methods.method import Measurements, Method
from ltsd.methods.step_context import StepContext


@dataclass(frozen=True)
class Mart:
    """The weight of the divergence, which counts most where the clean answer gives the label a low probability."""

    weight: float = knob(5.0, "weight of the divergence: lambda of the paper", at_least=0, search=Range(1.0, 10.0))


def objective(
    student: nn.Module, inputs: Tensor, adv_inputs: Tensor, labels: Tensor, context: StepContext
) -> tuple[Tensor, Measurements]:
    """BCE(p(x_adv), y) + lambda KL(p(x) || p(x_adv)) (1 - p_y(x)) (equation 11).

    BCE is -log p_y(x_adv) - log(1 - max over k != y of p_k(x_adv)) (equation 8).
    """
    own: Mart = context.own
    clean_logits, logits = student(inputs), student(adv_inputs)
    true = labels[:, None]
    probable = F.softmax(logits, dim=1)
    other = probable.scatter(1, true, 0).amax(dim=1)
    boosted = F.cross_entropy(logits, labels) - torch.log1p(-other.clamp_max(1 - 1e-6)).mean()
    doubt = 1 - F.softmax(clean_logits, dim=1).gather(1, true).squeeze(1)
    weighted = (divergence(clean_logits, logits) * doubt).mean()
    return boosted + own.weight * weighted, {"logits": logits, "boosted_loss": boosted, "robust_loss": weighted}


METHOD = Method("MART", adversary, objective, knobs=("mart", Mart))
