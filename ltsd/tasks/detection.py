"""Detection: a class and a box per object; a row is a location, and the score of a class is its average precision."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ltsd.attacks.domains import PIXELS
from ltsd.config import AttackConfig
from ltsd.data.batches import Split
from ltsd.data.longtail import Groups
from ltsd.evaluation.box_attacks import CHUNK, LOSSES, attacked_detections, class_loss, clean_detections
from ltsd.evaluation.detections import precision
from ltsd.evaluation.evaluate import not_finite
from ltsd.evaluation.pixels import overlap_metrics
from ltsd.matching import Locations, targets_of
from ltsd.tasks.task import ExtraLoss, Scores, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VALIDATION_SEED = 1
FULL_STEPS = 20


def rows(network: nn.Module, targets: Tensor) -> tuple[nn.Module, Tensor]:
    """Return the network with locations as rows, and the classes of the rows, int64 [R]; the last class is the
    background.
    """
    locations = Locations(network, targets)
    return locations, locations.labels


def box_losses(answering: nn.Module, inputs: Tensor) -> Tensor:
    """Return the box losses on images [B, C, H, W]: [K], one for each location that answers for a box."""
    assert isinstance(answering, Locations)
    return answering.box_losses(inputs)


def row_counts(counts: Tensor) -> Tensor:
    """Return the counts [C + 1] whose logarithms are the prior; the background has the geometric mean of the others.

    Softmax does not change if all logits shift by the same amount. So this equals a prior of log n_c - mean log n for
    the classes, and no prior for the background, which is not a rare class.
    """
    return torch.cat([counts, counts.log().mean().exp()[None]])


def radius(by_class: Tensor, labels: Tensor) -> Tensor:
    """Return [B, 1, 1, 1]: the radius of an image is the mean over its boxes, or over all classes if it has no box."""
    of_image = (labels[..., :1].long() == torch.arange(len(by_class), device=labels.device)).sum(1).float()
    of_image = torch.where(of_image.sum(1, keepdim=True) > 0, of_image, 1.0)
    return ((of_image @ by_class) / of_image.sum(1)).view(-1, 1, 1, 1)


def teacher_split(data: Split, gamma: float, seed: int) -> Split:
    """Return the split with class weights that make it D_B in expectation: a location of class c has the weight
    min(1, gamma * n_min / n_c).

    The background has the mean weight of the locations that answer for a box. So the proportion of mined background
    does not change.
    """
    counts = torch.tensor(data.class_counts(), dtype=torch.float32, device=data.rows.device)
    weights = (gamma * counts.min() / counts).clamp_max(1)
    return replace(data, class_weights=torch.cat([weights, (weights @ counts / counts.sum())[None]]))


def validate(model: nn.Module, split: Split, groups: Groups, attack: AttackConfig, *, steps: int) -> Scores:
    """Return clean and robust mean average precision.

    `robust_map50` is the lowest score under PGD on the class loss, on the box loss and on their sum. Each attack has
    one score for all images, because average precision is not a mean over images. `class_map50`, `box_map50` and
    `both_map50` are the scores of the single attacks. `fgsm_map50` reveals catastrophic overfitting.
    """
    labels = split.labels[split.rows]
    step_size = attack.resolved_step_size * max(1.0, FULL_STEPS / steps)
    found = {
        name: attacked_detections(
            model, split, loss, eps=attack.eps, step_size=step_size, steps=steps, seed=VALIDATION_SEED
        )
        for name, loss in LOSSES.items()
    }
    found["fgsm"] = attacked_detections(
        model, split, class_loss, eps=attack.eps, step_size=attack.eps, steps=1, seed=None
    )
    clean = precision(clean_detections(model, split), labels, groups)
    attacked = {name: precision(one, labels, groups) for name, one in found.items()}
    worst = min((attacked[name] for name in LOSSES), key=lambda one: one.balanced)
    values = overlap_metrics(clean, worst, "map50") | {f"{name}_map50": one.balanced for name, one in attacked.items()}
    finite = torch.stack([one.finite for one in found.values()]).all(0)
    told = not_finite(int((~finite).sum()), len(split), "images that it is validated on")
    return Scores(values, {"clean": list(clean.per_class), "robust": list(worst.per_class)}, told)


def validated(steps: int) -> str:
    """Describe `robust_map50` in words."""
    return f"lowest of PGD-{steps} on classes, on boxes, on both"


def show_attacked(
    model: nn.Module, split: Split, class_names: Sequence[str], *, eps: float, step_size: float, steps: int
) -> "Figure":
    """Draw images with rare classes; see `ltsd.box_pictures.box_grid`."""
    from ltsd.box_pictures import box_grid, images_with_rare_boxes

    inputs, labels = split.take(images_with_rare_boxes(split))
    return box_grid(model, inputs, labels, class_names, eps=eps, step_size=step_size, steps=steps)


def show_data(split: Split, class_names: Sequence[str]) -> "Figure":
    """Draw images with their boxes; see `ltsd.box_pictures.labelled_images`."""
    from ltsd.box_pictures import labelled_images

    return labelled_images(split, class_names)


TASK = Task(
    title="detection",
    kind="image",
    target="a box",
    unit="box",
    measure="map50",
    measure_title="mean AP50; in training recall",
    class_measure="AP50",
    counted="locations",
    chunk=CHUNK,
    domain=PIXELS,
    networks=("small-fcos",),
    augmentations=("none", "crop-flip"),
    rows=rows,
    radius=radius,
    teacher_split=teacher_split,
    validate=validate,
    validated=validated,
    show_attacked=show_attacked,
    attacked_hint="the image with its boxes, the answer, the image attacked with PGD-20 with the answer to that",
    show_data=show_data,
    targets=targets_of,
    row_counts=row_counts,
    extra=ExtraLoss("box_loss", box_losses),
)
