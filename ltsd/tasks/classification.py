"""Classification: one label per image; a row is an image, and the score of a class is its recall."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ltsd.attacks.domains import PIXELS, Domain
from ltsd.attacks.losses import cross_entropy, cw_margin, scaled_cross_entropy
from ltsd.config import LIBRARIES, AttackConfig
from ltsd.data.batches import Split
from ltsd.data.longtail import Groups, balanced_resample
from ltsd.errors import UserError
from ltsd.evaluation.evaluate import (
    CHUNK,
    Accuracy,
    pgd_correctness,
    standing_correctness,
    unanswered,
    validation_metrics,
)
from ltsd.tasks.task import Scores, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VALIDATION_SEED = 1
FULL_STEPS = 20
SHOWN_IMAGES = 10
VALIDATION_LOSSES = {"pgd": cross_entropy, "cw": cw_margin, "lsa": scaled_cross_entropy}
"""The losses that the attacks of a validation maximise, in order; benchmarks/results/scores.md compares choices."""


def rows(network: nn.Module, labels: Tensor) -> tuple[nn.Module, Tensor]:
    """Return both unchanged: each image [C, H, W] is a row, and its label is in labels [B]."""
    return network, labels


def radius(by_class: Tensor, labels: Tensor) -> Tensor:
    """Return [B, 1, 1, 1]: every pixel of an image has the radius of its class."""
    return by_class[labels].view(-1, 1, 1, 1)


def teacher_split(data: Split, gamma: float, seed: int) -> Split:
    """Return D_B: int(gamma * n_min) images of every class. It selects rows of the same stored images.

    Raises:
        UserError: D_B would be empty.
    """
    size = int(gamma * min(data.class_counts()))
    if size < 1:
        raise UserError(
            f"balance.teacher_gamma = {gamma} leaves no image per class: the smallest class has "
            f"{min(data.class_counts())}; it must be at least {1 / min(data.class_counts()):.3g}"
        )
    positions = balanced_resample(data.labels[data.rows].cpu().numpy(), size, seed)
    return data.select(data.rows[torch.from_numpy(positions).to(data.rows.device)])


def validate(
    model: nn.Module,
    split: Split,
    groups: Groups,
    attack: AttackConfig,
    *,
    steps: int,
    domain: Domain = PIXELS,
) -> Scores:
    """Return clean and robust class-balanced accuracies of inputs in a domain.

    `robust_acc` is the worst case, image by image, of PGD on each of VALIDATION_LOSSES. A search that maximises the
    accuracy under PGD on cross-entropy alone finds models whose gradients mislead that attack. `pgd_acc` and `cw_acc`
    are the accuracies after the first and the second attack. `fgsm_acc` reveals catastrophic overfitting.
    """
    fgsm = pgd_correctness(model, split, domain=domain, eps=attack.eps, step_size=attack.eps, steps=1, seed=None)
    standing = standing_correctness(
        model,
        split,
        VALIDATION_LOSSES,
        domain=domain,
        eps=attack.eps,
        step_size=attack.resolved_step_size * max(1.0, FULL_STEPS / steps),
        steps=steps,
        seed=VALIDATION_SEED,
    )
    found = {name: Accuracy.of(one, groups) for name, one in standing.items()}
    *before, worst = VALIDATION_LOSSES
    values = validation_metrics(found["clean"], found[worst])
    values |= {f"{name}_acc": found[name].balanced for name in before}
    values |= {"fgsm_acc": Accuracy.of(fgsm, groups).balanced}
    per_class = {"clean": list(found["clean"].per_class), "robust": list(found[worst].per_class)}
    return Scores(values, per_class, unanswered([fgsm, *standing.values()], "images that it is validated on"))


def validated(steps: int) -> str:
    """Describe `robust_acc` in words."""
    return f"worst of PGD-{steps}, CW-{steps}, LSA-{steps}"


def show_attacked(
    model: nn.Module, split: Split, class_names: Sequence[str], *, eps: float, step_size: float, steps: int
) -> "Figure":
    """Draw the first image of each of the first classes; see `ltsd.pictures.attack_grid`."""
    from ltsd.pictures import attack_grid

    inputs, labels = split.first_of_each_class(SHOWN_IMAGES)
    return attack_grid(model, inputs, labels, class_names, eps=eps, step_size=step_size, steps=steps)


def show_data(split: Split, class_names: Sequence[str]) -> "Figure":
    """Draw a few images of every class; see `ltsd.pictures.image_grid`."""
    from ltsd.pictures import image_grid

    return image_grid(split, class_names)


TASK = Task(
    title="classification",
    kind="image",
    target="an image",
    unit="image",
    measure="acc",
    measure_title="class-balanced accuracy",
    class_measure="recall",
    counted="images",
    chunk=CHUNK,
    domain=PIXELS,
    networks=("small-cnn", "small-resnet", "resnet18", "preact-resnet18", "wrn-34-10", *LIBRARIES),
    augmentations=("none", "crop-flip", "randaugment", "autoaugment"),
    rows=rows,
    radius=radius,
    teacher_split=teacher_split,
    validate=validate,
    validated=validated,
    show_attacked=show_attacked,
    attacked_hint="clean, attacked with PGD-20, and the perturbation",
    show_data=show_data,
)
