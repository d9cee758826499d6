"""Duplicate images across splits: counted by a hash of their pixels, left out of training, or refused."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltsd.config import DataConfig
from ltsd.data.counts import class_counts
from ltsd.errors import UserError

MOST = 0.01
"""Share of the smaller of two splits that may also be in the other one."""

Hashes = NDArray[np.int64]


def repeated(hashes: Hashes) -> int:
    """Return how many images are copies of an earlier one."""
    return len(hashes) - len(np.unique(hashes))


def without_copies(
    rows: NDArray[np.int64],
    hashes: Hashes,
    labels: NDArray[Any],
    held_out: Hashes,
    data: DataConfig,
    class_names: Sequence[str],
    size: Sequence[int],
) -> NDArray[np.int64]:
    """Return the training rows whose images are not among the held-out ones.

    Args:
        rows: [N] into hashes [M] and labels [M, ...].
        held_out: hashes of the images that validate or test.
        size: height and width of the images.

    Raises:
        UserError: a class would have no image left.
    """
    kept = rows[~np.isin(hashes[rows], held_out)]
    before, left = (class_counts(labels, len(class_names), size, of) for of in (rows, kept))
    for name, had, after in zip(class_names, before, left, strict=False):
        if had and not after:
            raise UserError(
                f"{data.source}: every training example of class {name!r} is, value by value, also held out to "
                f"validate or test; add examples, or allow that with --data.duplicates allow"
            )
    return kept


def overlap(kinds: tuple[str, str], one: Hashes, other: Hashes, data: DataConfig) -> int:
    """Return how many images of the smaller of two splits are in the other one.

    Args:
        kinds: what the images of each are called.

    Raises:
        UserError: more than MOST of them, and that is not allowed.
    """
    (small, what), (large, beside) = sorted([(one, kinds[0]), (other, kinds[1])], key=lambda pair: len(pair[0]))
    count = int(np.isin(small, large).sum())
    if count > MOST * len(small) and data.duplicates == "refuse":
        raise UserError(
            f"{data.source}: {count:,} of {len(small):,} {what} examples are, value by value, also {beside} examples, "
            f"so that results on them would be too good; take them out of one of the two, or allow that with "
            f"--data.duplicates allow"
        )
    return count
