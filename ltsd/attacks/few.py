"""APGD on the margin. In AA-few it replaces APGD on the targeted DLR loss, which needs four logits."""

from functools import partial

import torch
from torch import Tensor, nn

from ltsd.answers import is_right
from ltsd.attacks.apgd import apgd
from ltsd.attacks.domains import PIXELS
from ltsd.attacks.pgd import steady

STEPS = 100
"""The same as for the members of AutoAttack."""


def apgd_margin(model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: float, seed: int, batch_size: int) -> Tensor:
    """Return which examples are still classified correctly after APGD on z_k - z_y for every other class k in turn:
    bool [N].

    With two classes this is the usual margin, max_k z_k - z_y. With three, one attack for each k is stronger: for a
    linear model each z_k - z_y has a single maximum in the ball, while their maximum over k may have several.

    Args:
        model: [B, C, H, W] in [0, 1] -> logits [B, 2 or 3].
        inputs: [N, C, H, W] float32 in [0, 1].
        labels: [N] int64.
        eps: radius in units of the image range.
        seed: of the random starts; every batch starts the generator again.
        batch_size: examples attacked at a time.
    """
    batches = zip(torch.split(inputs, batch_size), torch.split(labels, batch_size), strict=True)
    return torch.cat([_attacked(model, *batch, eps, seed) for batch in batches])


def _attacked(model: nn.Module, inputs: Tensor, labels: Tensor, eps: float, seed: int) -> Tensor:
    generator = torch.Generator(inputs.device).manual_seed(seed)
    with torch.no_grad():
        num_classes = model(inputs).shape[1]
    standing = torch.ones_like(labels, dtype=torch.bool)
    for further in range(1, num_classes):
        start = PIXELS.uniform(inputs, eps=eps, generator=generator)
        objective = partial(_lead, model, labels, (labels + further) % num_classes)
        adv_inputs = apgd(objective, inputs, eps=eps, steps=STEPS, start=start)
        with torch.no_grad():
            standing &= is_right(model(adv_inputs), labels)
    return standing


def _lead(model: nn.Module, labels: Tensor, others: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return z_other - z_label, [B], as both values of `ltsd.attacks.apgd.Scored`."""
    logits: Tensor = model(steady(inputs))
    lead = (logits.gather(1, others[:, None]) - logits.gather(1, labels[:, None]))[:, 0]
    return lead, lead
