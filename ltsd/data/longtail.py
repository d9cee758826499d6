"""The long tail: how many images a class keeps, the order that they are drawn in, head, medium and tail."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ltsd.data.units import Unit
from ltsd.errors import UserError

Rows = NDArray[np.int64]


def long_tail_counts(n_max: int, imbalance_ratio: float, num_classes: int, tail: str) -> list[int]:
    """Return the training images of every class, in label order, from n_max down to int(n_max / IR).

    Args:
        tail: `exponential`, n_c = int(n_max * IR^(-c / (C - 1))) (Cui et al. 2019); or `step`, n_max for the first
            floor(C / 2) classes and int(n_max / IR) for the rest (Buda et al. 2018, Cao et al. 2019).
    """
    if num_classes == 1:
        return [n_max]
    if tail == "step":
        many = num_classes // 2
        return [n_max] * many + [int(n_max * (1 / imbalance_ratio))] * (num_classes - many)
    return [int(n_max * (1 / imbalance_ratio) ** (c / (num_classes - 1))) for c in range(num_classes)]


def shuffled_by_class(labels: NDArray[np.int64], num_classes: int) -> list[Rows]:
    """Return the rows of each class, shuffled in class order by one RandomState(0)."""
    random = np.random.RandomState(0)
    by_class = [np.flatnonzero(labels == c) for c in range(num_classes)]
    for rows in by_class:
        random.shuffle(rows)
    return by_class


def hold_out(labels: NDArray[np.int64], num_classes: int, fraction: float) -> tuple[Rows, Rows]:
    """Split a source without a test set into (training, test) rows: `fraction` of every class, at least one image."""
    by_class = shuffled_by_class(labels, num_classes)
    cut = [max(1, round(len(rows) * fraction)) if len(rows) else 0 for rows in by_class]
    test = [rows[:n] for rows, n in zip(by_class, cut, strict=True)]
    train = [rows[n:] for rows, n in zip(by_class, cut, strict=True)]
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


MANY, FEW = 100, 20
"""Training images of a class: more are many, fewer are few."""
Groups = Mapping[str, Sequence[int]]
"""Classes by head, medium and tail."""


def class_groups(class_counts: Sequence[int], by: str = "thirds") -> dict[str, list[int]]:
    """Return head, medium and tail; a group without classes is left out.

    Args:
        class_counts: training images of each class.
        by: `thirds` of the classes by training count, floor(C / 3) each in head and tail; of two classes one is the
            head and one the tail. Ties keep the order of the classes, so that the simulated tail of 10 classes is 7, 8,
            9. `many-medium-few`: more than MANY images, fewer than FEW, and what lies between (Liu et al. 2019,
            ImageNet-LT).
    """
    groups = (_thirds if by == "thirds" else _by_thresholds)(class_counts)
    return {name: sorted(classes) for name, classes in groups.items() if classes}


def _thirds(class_counts: Sequence[int]) -> dict[str, list[int]]:
    order = sorted(range(len(class_counts)), key=lambda c: -class_counts[c])
    third = max(1, len(order) // 3)
    return {"head": order[:third], "medium": order[third : len(order) - third], "tail": order[len(order) - third :]}


def _by_thresholds(class_counts: Sequence[int]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {"head": [], "medium": [], "tail": []}
    for c, count in enumerate(class_counts):
        groups["head" if count > MANY else "medium" if count >= FEW else "tail"].append(c)
    return groups


def check_groups(class_counts: Sequence[int], by: str, unit: Unit) -> None:
    """Check that there is a tail.

    Args:
        class_counts: training images of each class.
        by: as in `class_groups`.
        unit: what has a label.

    Raises:
        UserError: no class has fewer than FEW images; labels are of pixels or boxes, of which there are many more.
    """
    if by == "thirds":
        return
    if unit != "image":
        raise UserError(f"--data.groups {by}: counts images, and a label here is that of a {unit}; leave it out")
    if "tail" not in (groups := class_groups(class_counts, by)):
        there = ", ".join(f"{len(classes)} in the {name}" for name, classes in groups.items())
        raise UserError(
            f"--data.groups {by}: no class has fewer than {FEW} training images, so that there is no tail "
            f"({there}; the rarest class has {min(class_counts)}); leave it out"
        )


def balanced_resample(labels: NDArray[np.int64], size: int, seed: int) -> Rows:
    """Return the rows of D_B, `size` of every class, drawn once (LTSD, stage 1).

    A class with more is cut; one with fewer is repeated whole as often as it goes and the rest drawn
    with replacement.
    """
    random = np.random.RandomState(seed)
    drawn: list[Rows] = []
    for c in range(int(labels.max()) + 1):
        rows = random.permutation(np.flatnonzero(labels == c))
        whole = np.tile(rows, size // len(rows))
        rest = size - len(whole)
        extra = rows[:rest] if len(rows) >= size else random.choice(rows, rest)
        drawn.append(np.concatenate([whole, extra]))
    return np.concatenate(drawn)
