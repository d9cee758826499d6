"""Semantic segmentation: one label a pixel; a row is a pixel that has a label, and the score is the IoU of a class."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import count

import torch
from torch import Tensor, nn

from ltsd.answers import VOID
from ltsd.attacks import dense_losses
from ltsd.attacks.dense_losses import DenseLoss
from ltsd.attacks.pgd import Objective, pgd, steady, uniform_start
from ltsd.config import AttackConfig
from ltsd.data.batches import Split
from ltsd.evaluation.evaluate import eval_mode, not_finite
from ltsd.evaluation.pixels import Overlap, PixelCounts
from ltsd.tasks.task import Scores, Task

CHUNK = 32
VALIDATION_SEED = 1
FULL_STEPS = 20
VALIDATION_LOSSES: Mapping[str, DenseLoss] = {
    "pgd": dense_losses.cross_entropy,
    "segpgd": dense_losses.segpgd,
    "balanced": dense_losses.balanced_masked_cross_entropy,
}
"""What the attacks of a validation maximise."""


class Pixels(nn.Module):
    """A network that answers rows: the pixels `kept`, int64 [R], of a batch of `size` label maps laid end to end.

    An input of several batches, [k * size, C, H, W], gives [k * R, num_classes], batch by batch.
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
    """Return the network that answers pixels, and their labels int64 [R]; labels uint8 [B, H, W] are VOID elsewhere."""
    flat = labels.flatten()
    kept = (flat != VOID).nonzero().flatten()
    return Pixels(network, kept, len(labels)), flat[kept].long()


def radius(by_class: Tensor, labels: Tensor) -> Tensor:
    """Return [B, 1, H, W]: a pixel has the radius of its class; one without a label the mean over classes."""
    with_void = torch.cat([by_class, by_class.mean(0, keepdim=True)])
    return with_void[labels.long().clamp_max(len(by_class))][:, None]


def teacher_split(data: Split, gamma: float, seed: int) -> Split:
    """Return D_B in expectation: a pixel of class c weighs min(1, gamma * n_min / n_c).

    Repeating images cannot level the pixels of classes that share images. Gamma 1 weighs all classes alike; from the
    imbalance ratio on, all pixels weigh 1.
    """
    counts = torch.tensor(data.class_counts(), dtype=torch.float32, device=data.rows.device)
    return replace(data, class_weights=(gamma * counts.min() / counts).clamp_max(1))


def attacked_counts(
    model: nn.Module, split: Split, loss: DenseLoss, *, eps: float, step_size: float, steps: int, seed: int | None
) -> PixelCounts:
    """Return the counts under PGD on a loss, from one random start, drawn from `seed`; None starts at the image.

    Args:
        model: images [B, C, H, W] in [0, 1] -> logits [B, H, W, num_classes].
        split: images and label maps, on the model's device.
        loss: see `ltsd.attacks.dense_losses`.
        eps: radius, in units of the image range [0, 1].
        step_size: length of a step, in the same units.
        steps: gradient steps.
    """
    generator = None if seed is None else torch.Generator(split.rows.device).manual_seed(seed)
    found = []
    with eval_mode(model):
        for inputs, labels in split.chunks(CHUNK):
            adv_inputs = pgd(
                maximised(model, labels.long(), loss, steps),
                inputs,
                eps=eps,
                step_size=step_size,
                steps=steps,
                start=inputs if generator is None else uniform_start(inputs, eps=eps, generator=generator),
            )
            with torch.no_grad():
                found.append(PixelCounts.of(model(adv_inputs), labels))
    return PixelCounts.joined(found)


def maximised(model: nn.Module, labels: Tensor, loss: DenseLoss, steps: int) -> Objective:
    """Return the objective of one attack of so many steps, to be called once a step."""
    done = count()
    return lambda adv_inputs: loss(model(steady(adv_inputs)), labels, next(done) / steps)


def clean_counts(model: nn.Module, split: Split) -> PixelCounts:
    """Return the counts on clean images."""
    with eval_mode(model), torch.no_grad():
        return PixelCounts.joined([PixelCounts.of(model(inputs), labels) for inputs, labels in split.chunks(CHUNK)])


def validate(model: nn.Module, split: Split, class_counts: list[int], attack: AttackConfig, *, steps: int) -> Scores:
    """Return clean and robust mean IoU.

    `robust_miou` is the worst case, image by image by its own mean IoU, of PGD on each of VALIDATION_LOSSES; `pgd_miou`
    and the other names are those of single attacks. `fgsm_miou` reveals catastrophic overfitting.
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
    worst = clean
    for one in single.values():
        worst = worst.worse_of(one)
    overlaps = {name: Overlap.of(one, class_counts) for name, one in (single | {"fgsm": fgsm}).items()}
    values = overlap_metrics(Overlap.of(clean, class_counts), Overlap.of(worst, class_counts))
    values |= {f"{name}_miou": one.mean for name, one in overlaps.items()} | {"clean_acc": clean.accuracy()}
    told = not_finite(int((~(worst.finite & fgsm.finite)).sum()), len(split), "images that it is validated on")
    return Scores(values, {"clean": clean.iou(), "robust": worst.iou()}, told)


def overlap_metrics(clean: Overlap, robust: Overlap) -> dict[str, float]:
    """Return the metrics of a split, fractions in [0, 1]; with two classes there is no medium group."""
    return {
        "clean_miou": clean.mean,
        "tail_clean_miou": clean.group("tail"),
        "robust_miou": robust.mean,
        **{f"{group}_robust_miou": robust.group(group) for group in robust.groups},
        "worst_class_robust_miou": robust.worst,
    }


TASK = Task(
    title="segmentation",
    target="a pixel",
    label_dims=3,
    measure="miou",
    chunk=CHUNK,
    networks=("small-unet",),
    rows=rows,
    radius=radius,
    teacher_split=teacher_split,
    validate=validate,
)
