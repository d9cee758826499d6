"""Count the pixels that a model classifies correctly, on clean images and under PGD."""

from itertools import count

import torch
from torch import Tensor, nn

from ltsd.attacks.dense_losses import DenseLoss
from ltsd.attacks.domains import PIXELS
from ltsd.attacks.pgd import Objective, pgd, steady
from ltsd.data.batches import Split
from ltsd.evaluation.evaluate import eval_mode
from ltsd.evaluation.pixels import PixelCounts

CHUNK = 32
"""Images attacked at a time."""


def clean_counts(model: nn.Module, split: Split) -> PixelCounts:
    """Return the counts on clean images."""
    with eval_mode(model), torch.no_grad():
        return PixelCounts.joined([PixelCounts.of(model(inputs), labels) for inputs, labels in split.chunks(CHUNK)])


def attacked_counts(
    model: nn.Module, split: Split, loss: DenseLoss, *, eps: float, step_size: float, steps: int, seed: int | None
) -> PixelCounts:
    """Return the counts under PGD on a loss, with one start per image.

    Args:
        model: images [B, C, H, W] in [0, 1] -> logits [B, H, W, num_classes].
        split: images and label maps, on the model's device.
        loss: see `ltsd.attacks.dense_losses`.
        eps: radius, in units of the image range [0, 1].
        step_size: length of a step, in the same units.
        steps: gradient steps.
        seed: of the random start; None starts at the image.
    """
    generator = None if seed is None else torch.Generator(split.rows.device).manual_seed(seed)
    found = []
    with eval_mode(model):
        for inputs, labels in split.chunks(CHUNK):
            adv_inputs = pgd(
                maximised(model, labels.long(), loss, steps),
                inputs,
                domain=PIXELS,
                eps=eps,
                step_size=step_size,
                steps=steps,
                start=inputs if generator is None else PIXELS.uniform(inputs, eps=eps, generator=generator),
            )
            with torch.no_grad():
                found.append(PixelCounts.of(model(adv_inputs), labels))
    return PixelCounts.joined(found)


def maximised(model: nn.Module, labels: Tensor, loss: DenseLoss, steps: int) -> Objective:
    """Return the objective of one attack of `steps` steps; the attack must call it once per step."""
    done = count()
    return lambda adv_inputs: loss(model(steady(adv_inputs)), labels, next(done) / steps).sum()
