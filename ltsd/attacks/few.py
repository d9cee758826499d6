"""APGD on the margin, the member of AA-few in the place of the targeted DLR loss, which needs four logits."""

from functools import partial

import torch
from torch import Tensor, nn

from ltsd.answers import is_right
from ltsd.attacks.apgd import apgd
from ltsd.attacks.domains import PIXELS
from ltsd.attacks.pgd import steady

STEPS = 100
"""As many as the members of AutoAttack take."""


def apgd_margin(model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: float, seed: int, batch_size: int) -> Tensor:
    """Return which examples are right after APGD on the margin to every other class in turn: bool [N].

    With two classes that is the margin z_y - max other. With three it finds what the maximum may hide: of a linear
    model, each margin has one maximum in the ball, and their maximum may have several.

    Args:
        model: [B, C, H, W] in [0, 1] -> logits [B, 2 or 3].
        inputs: [N, C, H, W] float32 in [0, 1].
        labels: [N] int64.
        eps: radius in units of the image range.
        seed: of the random starts; every batch draws from it anew.
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
    """Return how far the logit of another class leads that of the label, [B], to maximise and to choose by."""
    logits: Tensor = model(steady(inputs))
    lead = (logits.gather(1, others[:, None]) - logits.gather(1, labels[:, None]))[:, 0]
    return lead, lead
