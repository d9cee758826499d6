"""The parts of a source once decoded: joined, put group by group, or divided where there is no test set."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ltsd.config import DataConfig
from ltsd.data.boxes import joined as joined_boxes
from ltsd.data.decoding import Decoded
from ltsd.data.encoded import EncodedImages
from ltsd.data.groups import hold_out_groups, label_counts
from ltsd.data.layouts.members import Member, in_time, shared_groups
from ltsd.data.longtail import hold_out
from ltsd.data.many_labels import hold_out_images
from ltsd.data.on_disk import concatenated, taken
from ltsd.data.units import unit_of
from ltsd.errors import UserError

Parts = dict[str, Decoded]
"""By role."""


def grouped(parts: Parts, found: Mapping[str, Sequence[Member]], column: str, folder: Path) -> tuple[Parts, list[str]]:
    """Return the images of each part group by group in the order of time, and remarks on groups that parts share."""
    numbers = {group: n for n, group in enumerate(sorted({one.group for of_part in found.values() for one in of_part}))}
    sorted_parts: Parts = {}
    for role, part in parts.items():
        rows = np.asarray(in_time(found[role]), dtype=np.int64)
        groups = np.array([numbers[found[role][row].group] for row in rows], dtype=np.int64)
        sorted_parts[role] = _rows_of(part, rows, folder)._replace(oriented=part.oriented, groups=groups)
    return sorted_parts, shared_groups(found, column)


def joined(pool: Sequence[Decoded], folder: Path) -> Decoded:
    """Concatenate the images of several parts; `folder` is as in `held_out`."""
    labels = [part.labels for part in pool]
    whole = joined_boxes(labels) if unit_of(labels[0]) == "box" else concatenated(labels, folder)
    groups = [part.groups for part in pool if part.groups is not None]
    oriented = sum(part.oriented for part in pool)
    encoded = [
        (part.images, row) for part in pool if isinstance(part.images, EncodedImages) for row in range(len(part.images))
    ]
    arrays = [part.images for part in pool if not isinstance(part.images, EncodedImages)]
    images = EncodedImages.joined(encoded, folder) if encoded else concatenated(arrays, folder)
    return Decoded(images, whole, oriented, np.concatenate(groups) if groups else None)


def held_out(data: DataConfig, names: Sequence[str], whole: Decoded, folder: Path) -> Parts:
    """Split a source without a test set into training and test images; those on disk go to temporary files of a folder.

    Raises:
        UserError: a class has one image, or there is one in all, which the test set takes; as `hold_out_groups`.
    """
    if whole.groups is not None:
        counts = label_counts(whole.labels, len(names))
        rows = hold_out_groups(whole.groups, counts, data.test_fraction, source=data.source, class_names=names)
        return _shared_out(whole, *rows, folder)
    if unit_of(whole.labels) != "image":
        train, test = hold_out_images(len(whole.labels), data.test_fraction)
        if not len(train):
            raise UserError(
                f"{data.source}: has {len(whole.labels)} image(s), and the test set takes all: there is no test split, "
                f"so that a share is held out; add images or a test split, or set a smaller --data.test-fraction"
            )
        return _shared_out(whole, train, test, folder)
    counts = np.bincount(whole.labels, minlength=len(names))
    if alone := [name for name, count in zip(names, counts, strict=True) if count == 1]:
        raise UserError(
            f"{data.source}: class {alone[0]!r} has one image, and the test set takes it: there is no test split, so "
            f"that a share of every class is held out; add images or a test split, or leave the class out"
        )
    return _shared_out(whole, *hold_out(whole.labels, len(names), data.test_fraction), folder)


def _shared_out(whole: Decoded, train: NDArray[np.int64], test: NDArray[np.int64], folder: Path) -> Parts:
    return {"train": _rows_of(whole, train, folder), "test": _rows_of(whole, test, folder)}


def _rows_of(whole: Decoded, rows: NDArray[np.int64], folder: Path) -> Decoded:
    images, groups = whole.images, whole.groups
    chosen = images.select(rows, folder) if isinstance(images, EncodedImages) else taken(images, rows, folder)
    return Decoded(chosen, taken(whole.labels, rows, folder), 0, None if groups is None else groups[rows])
