"""Semantic segmentation: one label per pixel; a row is a pixel with a label, and the score of a class is its IoU."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ltsd.answers import VOID
from ltsd.attacks import dense_losses
from ltsd.attacks.dense_losses import DenseLoss
from ltsd.attacks.domains import PIXELS
from ltsd.config import AttackConfig
from ltsd.data.batches import Split
from ltsd.data.longtail import Groups
from ltsd.evaluation.evaluate import not_finite
from ltsd.evaluation.pixel_attacks import CHUNK, attacked_counts, clean_counts
from ltsd.evaluation.pixels import Overlap, overlap_metrics, worst_case
from ltsd.models.smp import DECODERS
from ltsd.tasks.task import Scores, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VALIDATION_SEED = 1
FULL_STEPS = 20
VALIDATION_LOSSES: Mapping[str, DenseLoss] = {
    "pgd": dense_losses.cross_entropy,
    "segpgd": dense_losses.segpgd,
    "balanced": dense_losses.balanced_masked_cross_entropy,
}
"""The losses that the attacks of a validation maximise."""


class Pixels(nn.Module):
    """A network whose rows are the labelled pixels of a batch of `size` images.

    `kept`, int64 [R], are the indices of these pixels among all pixels of the batch. An input of k batches,
    [k * size, C, H, W], gives [k * R, num_classes], batch by batch.
    """

    def __init__(self, network: nn.Module, kept: Tensor, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size
        self.kept = kept

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [k * size, C, H, W] in [0, 1] -> logits [k * R, num_classes]."""
        logits: Tensor = self.network(inputs)
        rows = logits.reshape(len(inputs) // self.size, -1, logits.shape[-1])
        if rows.shape[1] != len(self.kept):
            rows = rows.index_select(1, self.kept)
        return rows.flatten(0, 1)


def rows(network: nn.Module, labels: Tensor) -> tuple[nn.Module, Tensor]:
    """Return the network with labelled pixels as rows, and the labels of the rows, int64 [R]. In `labels`, uint8
    [B, H, W], a pixel without label is VOID.
    """
    flat = labels.flatten()
    kept = (flat != VOID).nonzero().flatten()
    return Pixels(network, kept, len(labels)), flat[kept].long()


def radius(by_class: Tensor, labels: Tensor) -> Tensor:
    """Return [B, 1, H, W]: a pixel has the radius of its class; a pixel without label has the mean over classes."""
    with_void = torch.cat([by_class, by_class.mean(0, keepdim=True)])
    return with_void[labels.long().clamp_max(len(by_class))][:, None]


def teacher_split(data: Split, gamma: float, seed: int) -> Split:
    """Return the split with class weights that make it D_B in expectation: a pixel of class c has the weight
    min(1, gamma * n_min / n_c).

    Resampling images cannot balance classes that occur in the same images. With gamma = 1 all classes have the same
    total weight; with gamma at least the imbalance ratio, every pixel has the weight 1.
    """
    counts = torch.tensor(data.class_counts(), dtype=torch.float32, device=data.rows.device)
    return replace(data, class_weights=(gamma * counts.min() / counts).clamp_max(1))


def validate(model: nn.Module, split: Split, groups: Groups, attack: AttackConfig, *, steps: int) -> Scores:
    """Return clean and robust mean IoU.

    `robust_miou` is the worst case of PGD on each of VALIDATION_LOSSES; `pgd_miou`, `segpgd_miou` and `balanced_miou`
    are the scores of the single attacks. `fgsm_miou` reveals catastrophic overfitting.
    """
    clean = clean_counts(model, split)
    fgsm = attacked_counts(
        model, split, dense_losses.cross_entropy, eps=attack.eps, step_size=attack.eps, steps=1, seed=None
    )
    step_size = attack.resolved_step_size * max(1.0, FULL_STEPS / steps)
    single = {
        name: attacked_counts(
            model, split, loss, eps=attack.eps, step_size=step_size, steps=steps, seed=VALIDATION_SEED
        )
        for name, loss in VALIDATION_LOSSES.items()
    }
    worst = worst_case(list(single.values()))
    overlaps = {name: Overlap.of(one, groups) for name, one in (single | {"fgsm": fgsm}).items()}
    values = overlap_metrics(Overlap.of(clean, groups), Overlap.of(worst, groups))
    values |= {f"{name}_miou": one.balanced for name, one in overlaps.items()} | {"clean_acc": clean.accuracy()}
    told = not_finite(int((~(worst.finite & fgsm.finite)).sum()), len(split), "images that it is validated on")
    return Scores(values, {"clean": clean.iou(), "robust": worst.iou()}, told)


def validated(steps: int) -> str:
    """Describe `robust_miou` in words."""
    return f"worst of PGD-{steps}, SegPGD-{steps}, balanced-{steps}"


def show_attacked(
    model: nn.Module, split: Split, class_names: Sequence[str], *, eps: float, step_size: float, steps: int
) -> "Figure":
    """Draw images with rare classes; see `ltsd.map_pictures.map_grid`."""
    from ltsd.map_pictures import images_with_rare_classes, map_grid

    inputs, labels = split.take(images_with_rare_classes(split))
    return map_grid(model, inputs, labels, class_names, eps=eps, step_size=step_size, steps=steps)


def show_data(split: Split, class_names: Sequence[str]) -> "Figure":
    """Draw a few images of every class; see `ltsd.map_pictures.class_grid`."""
    from ltsd.map_pictures import class_grid

    return class_grid(split, class_names)


TASK = Task(
    title="segmentation",
    kind="image",
    target="a pixel",
    unit="pixel",
    measure="miou",
    measure_title="mean IoU; in training recall",
    class_measure="IoU",
    counted="pixels",
    chunk=CHUNK,
    domain=PIXELS,
    networks=("small-unet", *DECODERS),
    augmentations=("none", "crop-flip", "crop-flip-scale"),
    rows=rows,
    radius=radius,
    teacher_split=teacher_split,
    validate=validate,
    validated=validated,
    show_attacked=show_attacked,
    attacked_hint="the image, its labels, the answer, the image attacked with PGD-20, and the answer to that",
    show_data=show_data,
)
