"""Segmentation ensemble attack (SEA; Croce et al. 2024): the worst case of three losses under Auto-PGD
with a falling radius.

The score of Auto-PGD is the negative mean IoU of an image, not the loss: a masked loss decreases when one more pixel
becomes wrong.
"""

import torch
from torch import Tensor, nn

from ltsd.attacks import dense_losses
from ltsd.attacks.apgd import apgd
from ltsd.attacks.dense_losses import DenseLoss
from ltsd.attacks.domains import PIXELS
from ltsd.attacks.pgd import steady
from ltsd.data.batches import Split
from ltsd.evaluation.evaluate import eval_mode
from ltsd.evaluation.pixels import PixelCounts, worst_case

LOSSES: tuple[DenseLoss, ...] = (
    dense_losses.masked_cross_entropy,
    dense_losses.balanced_masked_cross_entropy,
    dense_losses.jensen_shannon,
)
WIDE = ((2.0, 0.3), (1.5, 0.3))
"""The radii before the last one, as multiples of it, each with its share of the steps."""


def sea_counts(model: nn.Module, split: Split, *, eps: float, steps: int, seed: int, chunk: int) -> PixelCounts:
    """Return the worst case of the attacks, see `worst_case`.

    Args:
        model: images [B, C, H, W] in [0, 1] -> logits [B, H, W, num_classes].
        split: images and label maps, on the model's device.
        eps: radius, in units of the image range.
        steps: gradient steps of each loss, over all radii.
        seed: of the random starts.
        chunk: images attacked at a time.
    """
    found = []
    with eval_mode(model):
        for loss in LOSSES:
            generator = torch.Generator(split.rows.device).manual_seed(seed)
            parts = [
                _worst_point(model, inputs, labels, loss, eps=eps, steps=steps, generator=generator)
                for inputs, labels in split.chunks(chunk)
            ]
            found.append(PixelCounts.joined(parts))
    return worst_case(found)


def _worst_point(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    loss: DenseLoss,
    *,
    eps: float,
    steps: int,
    generator: torch.Generator,
) -> PixelCounts:
    """Return the counts at the point with the lowest mean IoU of each image, among all tried points within `eps`."""

    def objective(adv_inputs: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(steady(adv_inputs))
        losses = loss(logits, labels.long(), 0.0)
        return losses, -PixelCounts.of(logits.detach(), labels).image_miou().to(losses)

    here, left = PIXELS.uniform(inputs, eps=WIDE[0][0] * eps, generator=generator), steps
    for factor, share in WIDE:
        taken = round(share * steps)
        here, left = apgd(objective, inputs, eps=factor * eps, steps=taken, start=here), left - taken
    here = apgd(objective, inputs, eps=eps, steps=left, start=here)
    with torch.no_grad():
        return PixelCounts.of(model(here), labels)
