"""Images with a label a pixel: the names of their classes, and their splits. A tail cannot be simulated, since an image
holds many classes.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ltsd.answers import VOID
from ltsd.config import DataConfig
from ltsd.data.groups import held_out_how, hold_out_groups, label_counts
from ltsd.data.longtail import Rows, SplitIndices
from ltsd.errors import UserError

Maps = NDArray[np.uint8]
OF_CLASSES = ("imbalance_ratio", "n_max", "test_per_class")
"""The knobs of data with one label an image."""


def checked_names(source: str, names: Sequence[str]) -> list[str]:
    """Return the class names of label maps.

    Raises:
        UserError: more than the indices below VOID.
    """
    if len(names) > VOID:
        raise UserError(
            f"--data.source {source}: has {len(names)} classes; label maps have at most {VOID}, 0 to {VOID - 1}, since "
            f"{VOID} is void"
        )
    return list(names)


def numbered_names(source: str, parts: Iterable[Maps]) -> list[str]:
    """Return `class 0`, `class 1` … up to the largest index in label maps [N, H, W], VOID aside.

    Raises:
        UserError: there is one class alone, as in masks of 0 and 255.
    """
    largest = max(int(maps[maps != VOID].max()) for maps in parts)
    if not largest:
        raise UserError(
            f"--data.source {source}: all pixels of its masks are of class 0 or {VOID}, void; of an object and its "
            f"ground write 1 and 0"
        )
    return [f"class {c}" for c in range(largest + 1)]


def pixel_counts(maps: Maps, num_classes: int) -> NDArray[np.int64]:
    """Return the pixels of every class in label maps [N, H, W], [C]."""
    return np.bincount(maps.ravel(), minlength=num_classes)[:num_classes]


def draw_maps(
    maps: Maps, class_names: Sequence[str], data: DataConfig, own_val: Maps | None, groups: Rows | None
) -> SplitIndices:
    """Split the training images: validate on the split that the data bring, else on `data.val_fraction` of all images.

    Args:
        maps: uint8 [N, H, W] of the training images.
        own_val: uint8 [M, H, W] of the validation split that the data bring; its rows follow those of `maps`.
        groups: int64 [N] of the training images, if a column names them; see `hold_out_groups`.

    Raises:
        UserError: a class without a training pixel; a knob of data with one label an image is set; no image is left; as
            `hold_out_groups`.
    """
    for name in OF_CLASSES:
        if getattr(data, name) is not None:
            raise UserError(
                f"--data.{name.replace('_', '-')} {getattr(data, name):g}: an image with a label a pixel holds many "
                f"classes, so that none can be drawn by class; leave the flag out"
            )
    order = np.random.RandomState(0).permutation(len(maps))
    held_out = 0 if own_val is not None else max(1, round(data.val_fraction * len(maps)))
    if len(maps) <= held_out:
        raise UserError(f"{data.source}: has {len(maps)} training image(s), too few to validate on one; add images")
    train, val = np.sort(order[held_out:]), np.sort(order[:held_out])
    complete, val_from = np.arange(len(maps)), f"{data.val_fraction:.3g} of the training images"
    if own_val is not None:
        val, val_from = np.arange(len(maps), len(maps) + len(own_val)), "the data's own validation split, whole"
        if data.finalists != "train":
            complete = np.append(complete, val)
    elif groups is not None:
        counts = label_counts(maps, len(class_names))
        train, val = hold_out_groups(groups, counts, data.val_fraction, source=data.source, class_names=class_names)
        val_from = held_out_how(groups, data.val_fraction)
    counts = pixel_counts(maps[train], len(class_names))
    for name, count in zip(class_names, counts, strict=True):
        if not count:
            raise UserError(f"{data.source}: class {name!r} has no pixel in the training images; leave the class out")
    return SplitIndices(train, val, val, complete, float(counts.max() / counts.min()), False, val_from)


def test_rows(maps: Maps, class_names: Sequence[str], source: str) -> NDArray[np.int64]:
    """Return the rows of the test set: all.

    Raises:
        UserError: a class has no test pixel.
    """
    for name, count in zip(class_names, pixel_counts(maps, len(class_names)), strict=True):
        if not count:
            raise UserError(f"{source}: class {name!r} has no pixel in the test images; leave the class out")
    return np.arange(len(maps))


def hold_out_maps(count: int, fraction: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split `count` images without a test set into (training, test) rows, at least one image for the test."""
    order, cut = np.random.RandomState(0).permutation(count), max(1, round(count * fraction))
    return np.sort(order[cut:]), np.sort(order[:cut])
