"""RoBal: a scale-invariant classifier, margins that grow with rarity, a prior in the loss (Wu et al. 2021).

This is the paper's RoBal-R: nothing is added to the logits at test time.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.knobs import Range, knob
from ltsd.losses import divergence
from ltsd.methods.at import adversary
from ltsd.methods.method import Measurements, Method
from ltsd.methods.step_context import StepContext

WEIGHT_SLACK = 1 / 32
SHORTEST = 1e-12


@dataclass(frozen=True)
class Robal:
    """RoBal's margins and weights; the defaults are those of CIFAR-10-LT."""

    scale: float = knob(10.0, "factor on the cosines in the cross-entropy: s", above=0)
    margin: float = knob(0.1, "margin of the most frequent class: m_0", at_least=0)
    margin_tau: float = knob(
        0.3, "growth of the margin with log(n_c / n_min): tau_m", at_least=0, search=Range(0.0, 1.0)
    )
    prior_tau: float = knob(1.5, "exponent of the class prior: tau_b", at_least=0, search=Range(0.0, 2.0))
    beta: float = knob(6.0, "weight of the divergence", at_least=0, search=Range(1.0, 12.0))


class CosineHead(nn.Module):
    """z_k = w_k . h / ((||w_k|| + 1/32) ||h||), in [-1, 1] (section 3.2)."""

    def __init__(self, size: int, num_classes: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(size)
        self.weight = nn.Parameter(torch.empty(num_classes, size).uniform_(-bound, bound))

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, ..., size] -> cosines [B, ..., num_classes]."""
        lengths = self.weight.norm(dim=1, keepdim=True) + WEIGHT_SLACK
        return F.linear(F.normalize(features, dim=-1, eps=SHORTEST), self.weight / lengths)


def objective(
    student: nn.Module, inputs: Tensor, adv_inputs: Tensor, labels: Tensor, context: StepContext
) -> tuple[Tensor, Measurements]:
    """CE(s (z - m_y) + tau_b log pi, y) + beta KL(p(x) || p(x_adv)), with m_k = m_0 + tau_m log(n_k / n_min) / s.

    Only the cross-entropy has the margins and the prior (equations 8 to 10).
    """
    own: Robal = context.own
    clean_cosines, cosines = student(inputs), student(adv_inputs)
    log_counts = context.log_counts
    margins = own.margin + own.margin_tau * (log_counts - log_counts.min()) / own.scale
    is_true = labels[:, None] == torch.arange(len(margins), device=labels.device)
    behind = cosines - is_true * margins
    log_prior = log_counts - log_counts.logsumexp(0)
    balanced = F.cross_entropy(own.scale * behind + own.prior_tau * log_prior, labels)
    robust = divergence(clean_cosines, cosines).mean()
    return balanced + own.beta * robust, {"logits": cosines, "balanced_loss": balanced, "robust_loss": robust}


METHOD = Method("RoBal", adversary, objective, knobs=("robal", Robal), head=CosineHead)
