"""Splits of images with many labels each, of pixels or of boxes. A tail cannot be simulated, since an image holds many
classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltsd.config import DataConfig
from ltsd.data.counts import class_counts
from ltsd.data.groups import held_out_how, hold_out_groups, label_counts
from ltsd.data.longtail import Rows
from ltsd.data.protocol import SplitIndices
from ltsd.data.units import unit_of
from ltsd.errors import UserError

Labels = NDArray[Any]
Size = Sequence[int]
OF_CLASSES = ("imbalance_ratio", "n_max", "test_per_class")
"""The knobs of data with one label an image."""


def draw_images(
    labels: Labels,
    class_names: Sequence[str],
    data: DataConfig,
    own_val: Labels | None,
    groups: Rows | None,
    size: Size,
) -> SplitIndices:
    """Split the training images: validate on the split that the data bring, else on `data.val_fraction` of all images.

    Args:
        labels: of the training images, see `ltsd.data.units`.
        class_names: in label order.
        data: the data configuration.
        own_val: of the validation split that the data bring; its rows follow those of `labels`.
        groups: int64 [N] of the training images, if a column names them; see `hold_out_groups`.
        size: height and width of the images.

    Raises:
        UserError: a class without a training label; a knob of data with one label an image is set; no image is left; as
            `hold_out_groups`.
    """
    unit = unit_of(labels)
    for name in OF_CLASSES:
        if getattr(data, name) is not None:
            raise UserError(
                f"--data.{name.replace('_', '-')} {getattr(data, name):g}: an image with a label a {unit} holds many "
                f"classes, so that none can be drawn by class; leave the flag out"
            )
    order = np.random.RandomState(0).permutation(len(labels))
    held_out = 0 if own_val is not None else max(1, round(data.val_fraction * len(labels)))
    if len(labels) <= held_out:
        raise UserError(f"{data.source}: has {len(labels)} training image(s), too few to validate on one; add images")
    train, val = np.sort(order[held_out:]), np.sort(order[:held_out])
    complete, val_from = np.arange(len(labels)), f"{data.val_fraction:.3g} of the training images"
    if own_val is not None:
        val, val_from = np.arange(len(labels), len(labels) + len(own_val)), "the data's own validation split, whole"
        if data.finalists != "train":
            complete = np.append(complete, val)
    elif groups is not None:
        counts = label_counts(labels, len(class_names))
        train, val = hold_out_groups(groups, counts, data.val_fraction, source=data.source, class_names=class_names)
        val_from = held_out_how(groups, data.val_fraction)
    counts = _checked_counts(labels, train, class_names, data.source, size, "training")
    return SplitIndices(train, val, val, complete, float(counts.max() / counts.min()), False, val_from)


def test_rows(labels: Labels, class_names: Sequence[str], source: str, size: Size) -> NDArray[np.int64]:
    """Return the rows of the test set: all.

    Raises:
        UserError: a class has no test label.
    """
    rows = np.arange(len(labels))
    _checked_counts(labels, rows, class_names, source, size, "test")
    return rows


def hold_out_images(count: int, fraction: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split `count` images without a test set into (training, test) rows, at least one image for the test."""
    order, cut = np.random.RandomState(0).permutation(count), max(1, round(count * fraction))
    return np.sort(order[cut:]), np.sort(order[:cut])


def _checked_counts(
    labels: Labels, rows: Rows, class_names: Sequence[str], source: str, size: Size, images: str
) -> Rows:
    """Return how often each class occurs in rows of labels.

    Raises:
        UserError: one does not.
    """
    counts = class_counts(labels, len(class_names), size, rows).numpy()
    for name, count in zip(class_names, counts, strict=True):
        if not count:
            raise UserError(
                f"{source}: class {name!r} has no {unit_of(labels)} in the {images} images; leave the class out"
            )
    return counts
