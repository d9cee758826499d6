"""TAET: clean training first, then HARL, which levels the adversarial losses of the classes (Wang et al. 2025)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.attacks.pgd import Objective
from ltsd.knobs import Range, knob
from ltsd.methods import at, natural
from ltsd.methods.method import Measurements, Method
from ltsd.methods.setting import Setting


@dataclass(frozen=True)
class Taet:
    """When HARL begins, and the weights of its three terms."""

    clean_share: float = knob(0.4, "share of the epochs that are clean training", at_least=0, below=1)
    mean_weight: float = knob(
        0.1, "weight of the mean class loss: alpha", at_least=0, search=Range(0.03, 3.0, log=True)
    )
    spread_weight: float = knob(
        0.1, "weight of the variance of the class losses: beta", at_least=0, search=Range(0.01, 1.0, log=True)
    )
    rare_weight: float = knob(
        0.1, "weight of the squared shares of the class losses: gamma", at_least=0, search=Range(0.01, 1.0, log=True)
    )


def class_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of each class of the batch; classes without images are left out."""
    losses = F.cross_entropy(logits, labels, reduction="none")
    sums = torch.zeros(logits.shape[1], device=logits.device, dtype=losses.dtype).index_add(0, labels, losses)
    images = torch.bincount(labels, minlength=logits.shape[1])
    return sums[images > 0] / images[images > 0]


def adversary(student: nn.Module, inputs: Tensor, labels: Tensor, setting: Setting) -> Objective | None:
    """CE(f(x_adv), y), once clean training is over."""
    is_clean = setting.progress < setting.own.clean_share
    return None if is_clean else at.adversary(student, inputs, labels, setting)


def objective(
    student: nn.Module, inputs: Tensor, adv_inputs: Tensor, labels: Tensor, setting: Setting
) -> tuple[Tensor, Measurements]:
    """CE(f(x), y); then a mean(L_c) + b mean((L_c - mean)^2) + g sum((L_c / sum L)^2) (section 4.2)."""
    own: Taet = setting.own
    if setting.progress < own.clean_share:
        return natural.objective(student, inputs, adv_inputs, labels, setting)
    logits = student(adv_inputs)
    losses = class_losses(logits, labels)
    spread = losses.var(correction=0)
    rare = (losses / losses.sum()).square().sum()
    loss = own.mean_weight * losses.mean() + own.spread_weight * spread + own.rare_weight * rare
    return loss, {"logits": logits, "mean_loss": losses.mean(), "spread_loss": spread, "rare_loss": rare}


METHOD = Method("TAET", adversary, objective, knobs=("taet", Taet), start="gaussian")
