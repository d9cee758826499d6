"""The detections of a model on clean images, and under PGD on the class loss, the box loss or their sum."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.attacks.domains import PIXELS
from ltsd.attacks.pgd import pgd, steady
from ltsd.data.batches import Split
from ltsd.evaluation.detections import Detections
from ltsd.evaluation.evaluate import eval_mode
from ltsd.matching import Locations, targets_of

CHUNK = 32
"""Images attacked at a time."""

BoxLoss = Callable[[Locations, Tensor], Tensor]


def class_loss(locations: Locations, inputs: Tensor) -> Tensor:
    """Return the cross-entropy of the rows, summed to a 0-d tensor."""
    return F.cross_entropy(locations(inputs), locations.labels, reduction="sum")


def box_loss(locations: Locations, inputs: Tensor) -> Tensor:
    """Return the loss of the boxes, summed to a 0-d tensor."""
    return locations.box_losses(inputs).sum()


def both_losses(locations: Locations, inputs: Tensor) -> Tensor:
    """Return the sum of `class_loss` and `box_loss`."""
    return box_loss(locations, inputs) + class_loss(locations, inputs)


LOSSES: Mapping[str, BoxLoss] = {"class": class_loss, "box": box_loss, "both": both_losses}


def clean_detections(model: nn.Module, split: Split) -> Detections:
    """Return the detections on clean images."""
    with eval_mode(model), torch.no_grad():
        parts = [Detections.of(model(inputs), *inputs.shape[2:]) for inputs, _ in split.chunks(CHUNK)]
    return Detections.joined(parts)


def attacked_detections(
    model: nn.Module, split: Split, loss: BoxLoss, *, eps: float, step_size: float, steps: int, seed: int | None
) -> Detections:
    """Return the detections under PGD on a loss, with one start per image.

    Args:
        model: images [B, C, H, W] in [0, 1] -> [B, L, num_classes + 1 + BOX].
        split: images and boxes, on the model's device.
        loss: see LOSSES.
        eps: radius, in units of the image range [0, 1].
        step_size: length of a step, in the same units.
        steps: gradient steps.
        seed: of the random start; None starts at the image.
    """
    generator = None if seed is None else torch.Generator(split.rows.device).manual_seed(seed)
    found = []
    with eval_mode(model):
        for inputs, labels in split.chunks(CHUNK):
            start = inputs if generator is None else PIXELS.uniform(inputs, eps=eps, generator=generator)
            adv_inputs = attacked_boxes(model, inputs, labels, loss, start, eps=eps, step_size=step_size, steps=steps)
            with torch.no_grad():
                found.append(Detections.of(model(adv_inputs), *inputs.shape[2:]))
    return Detections.joined(found)


def attacked_boxes(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    loss: BoxLoss,
    start: Tensor,
    *,
    eps: float,
    step_size: float,
    steps: int,
) -> Tensor:
    """Return the adversarial images [B, C, H, W] of PGD on a loss; `labels` are boxes, float32 [B, M, 5]. See
    `attacked_detections`.
    """
    locations = Locations(model, targets_of(model, inputs, labels))
    return pgd(
        lambda adv_inputs: loss(locations, steady(adv_inputs)),
        inputs,
        domain=PIXELS,
        eps=eps,
        step_size=step_size,
        steps=steps,
        start=start,
    )
