"""TAET: clean training first, then HARL, which levels the adversarial losses of the classes (Wang et al. 2025)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.attacks.pgd import Objective
from ltsd.knobs import Range, knob
from ltsd.methods import at, natural
from ltsd.methods.method import Measurements, Method
from ltsd.methods.step_context import StepContext

CLEAN, HARL = 0, 1


@dataclass(frozen=True)
class Taet:
    """The start of HARL, and the weights of its three terms."""

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


def class_losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy of each class, [C], 0 for a class without images; and which classes have images,
    bool [C].

    The shapes do not depend on the content of the batch, so the host never waits for the device.

    Args:
        logits: [B, C] raw.
        labels: [B] int64.
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    zeros = torch.zeros(logits.shape[1], device=logits.device, dtype=losses.dtype)
    sums, images = zeros.index_add(0, labels, losses), zeros.index_add(0, labels, torch.ones_like(losses))
    return sums / images.clamp_min(1), images > 0


def adversary(student: nn.Module, inputs: Tensor, labels: Tensor, context: StepContext) -> Objective | None:
    """CE(f(x_adv), y), once clean training is over."""
    return None if context.phase == CLEAN else at.adversary(student, inputs, labels, context)


def objective(
    student: nn.Module, inputs: Tensor, adv_inputs: Tensor, labels: Tensor, context: StepContext
) -> tuple[Tensor, Measurements]:
    """CE(f(x), y); then a mean(L_c) + b mean((L_c - mean)^2) + g sum((L_c / sum L)^2) (section 4.2).

    The means are over the classes in the batch; the authors' code counts absent classes with a loss of 0.
    """
    own: Taet = context.own
    if context.phase == CLEAN:
        return natural.objective(student, inputs, adv_inputs, labels, context)
    logits = student(adv_inputs)
    losses, seen = class_losses(logits, labels)
    mean = losses.sum() / seen.sum()
    spread = ((losses - mean).square() * seen).sum() / seen.sum()
    rare = (losses / losses.sum()).square().sum()
    loss = own.mean_weight * mean + own.spread_weight * spread + own.rare_weight * rare
    return loss, {"logits": logits, "mean_loss": mean, "spread_loss": spread, "rare_loss": rare}


def phase(own: Taet, progress: float) -> int:
    """Return CLEAN for the first `clean_share` of the training, then HARL."""
    return CLEAN if progress < own.clean_share else HARL


METHOD = Method("TAET", adversary, objective, knobs=("taet", Taet), start="gaussian", phase=phase)
