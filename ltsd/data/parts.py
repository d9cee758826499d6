"""The parts of a source once decoded: joined, put group by group, or divided where there is no test set."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ltsd.config import DataConfig
from ltsd.data.boxes import joined as joined_boxes
from ltsd.data.decode import Decoded
from ltsd.data.groups import Member, hold_out_groups, in_time, label_counts, shared_groups
from ltsd.data.longtail import hold_out
from ltsd.data.many_labels import hold_out_images
from ltsd.data.units import unit_of
from ltsd.errors import UserError

Parts = dict[str, Decoded]
"""By role."""


def grouped(parts: Parts, found: Mapping[str, Sequence[Member]], column: str) -> tuple[Parts, list[str]]:
    """Return the images of each part group by group in the order of time, and remarks on groups that parts share."""
    numbers = {group: n for n, group in enumerate(sorted({one.group for of_part in found.values() for one in of_part}))}
    sorted_parts: Parts = {}
    for role, part in parts.items():
        rows = in_time(found[role])
        groups = np.array([numbers[found[role][row].group] for row in rows], dtype=np.int64)
        sorted_parts[role] = Decoded(part.images[rows], part.labels[rows], part.oriented, groups)
    return sorted_parts, shared_groups(found, column)


def joined(pool: Sequence[Decoded]) -> Decoded:
    """Concatenate the images of several parts."""
    images, labels = ([getattr(part, name) for part in pool] for name in ("images", "labels"))
    whole = joined_boxes(labels) if unit_of(labels[0]) == "box" else np.concatenate(labels)
    groups = [part.groups for part in pool if part.groups is not None]
    oriented = sum(part.oriented for part in pool)
    return Decoded(np.concatenate(images), whole, oriented, np.concatenate(groups) if groups else None)


def held_out(data: DataConfig, names: Sequence[str], whole: Decoded) -> Parts:
    """Split a source without a test set into training and test images.

    Raises:
        UserError: a class has one image, which the test set takes; as `hold_out_groups`.
    """
    if whole.groups is not None:
        counts = label_counts(whole.labels, len(names))
        return _shared_out(
            whole,
            *hold_out_groups(whole.groups, counts, data.test_fraction, source=data.source, class_names=names),
        )
    if unit_of(whole.labels) != "image":
        return _shared_out(whole, *hold_out_images(len(whole.labels), data.test_fraction))
    counts = np.bincount(whole.labels, minlength=len(names))
    if alone := [name for name, count in zip(names, counts, strict=True) if count == 1]:
        raise UserError(
            f"{data.source}: class {alone[0]!r} has one image, and the test set takes it: there is no test split, so "
            f"that a share of every class is held out; add images or a test split, or leave the class out"
        )
    return _shared_out(whole, *hold_out(whole.labels, len(names), data.test_fraction))


def _shared_out(whole: Decoded, train: NDArray[np.int64], test: NDArray[np.int64]) -> Parts:
    rows_of = {"train": train, "test": test}
    groups = whole.groups
    return {
        role: Decoded(whole.images[rows], whole.labels[rows], 0, None if groups is None else groups[rows])
        for role, rows in rows_of.items()
    }
