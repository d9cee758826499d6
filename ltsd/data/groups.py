"""Images that belong together, such as the frames of one video: splits that do not tear them apart, and blocks of them
that a bootstrap draws.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltsd.data.units import unit_of
from ltsd.errors import UserError

Rows = NDArray[np.int64]

MANY = 10
"""From so many groups on they are drawn whole."""
GAP = 5
"""Images left out at each end of a block."""
BLOCK = 10
"""Consecutive images that a bootstrap draws together where the groups are few."""
DRAWS = 500


def hold_out_groups(
    groups: Rows, counts: Rows, fraction: float, *, source: str, class_names: Sequence[str]
) -> tuple[Rows, Rows]:
    """Split rows into (kept, held out), so that what is held out is not beside what is kept.

    From MANY groups on, whole groups are held out. Of fewer, one block of consecutive rows of each is, and GAP rows
    at each end of it are in neither part. Of DRAWS draws from one seed that leave every class something to learn from,
    the one is taken whose held-out part has the size wanted and the shares of the classes most like the whole's.

    Args:
        groups: int64 [N]; the rows of a group are in the order of time.
        counts: int64 [N, C], images or pixels of each class in a row.
        fraction: of the rows to hold out.
        source: what messages call the data.
        class_names: as `source`.

    Raises:
        UserError: fewer than two groups; no draw leaves a class something to learn from.
    """
    sizes = np.unique(groups, return_counts=True)[1]
    if len(sizes) < 2:
        raise UserError(
            f"{source}: --data.group-by finds one group in its {len(groups)} training images, and two are needed to "
            f"hold one out; choose another column"
        )
    random, whole = np.random.RandomState(0), counts.sum(0)
    draw = _whole_groups if len(sizes) >= MANY else _blocks
    best, least, lacking = None, np.inf, np.zeros(len(class_names), dtype=int)
    for _ in range(DRAWS):
        part = draw(groups, fraction, random)
        left = counts[part == 0].sum(0)
        lacking += (left == 0) & (whole > 0)
        distance = _distance(counts[part == 1].sum(0), whole) + abs((part == 1).mean() / fraction - 1)
        if distance < least and not ((left == 0) & (whole > 0)).any():
            best, least = part, distance
    if best is None:
        raise UserError(
            f"{source}: class {class_names[int(lacking.argmax())]!r} is in too few groups of --data.group-by: held out "
            f"by group, it would have nothing to train on; set a smaller fraction, or leave the class out"
        )
    return np.flatnonzero(best == 0), np.flatnonzero(best == 1)


def _distance(ours: Rows, theirs: Rows) -> float:
    """Return the mean over classes of |p - q| / (p + q) of two lists of counts, in [0, 1]; rare classes count alike."""
    p, q = (each[theirs > 0] / max(1, each.sum()) for each in (ours, theirs))
    return float((np.abs(p - q) / (p + q)).mean())


def _whole_groups(groups: Rows, fraction: float, random: np.random.RandomState) -> Rows:
    """Return 1 for rows of groups that are held out, 0 for others."""
    order = random.permutation(np.unique(groups))
    reached = np.cumsum([(groups == group).sum() for group in order])[:-1]
    count = int(np.abs(reached - fraction * len(groups)).argmin()) + 1
    return np.isin(groups, order[:count]).astype(np.int64)


def _blocks(groups: Rows, fraction: float, random: np.random.RandomState) -> Rows:
    """Return 1 for rows that are held out, 2 for those left out beside them, 0 for others."""
    part = np.zeros(len(groups), dtype=np.int64)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        size = max(1, round(fraction * len(rows)))
        first = random.randint(len(rows) - size + 1)
        part[rows[max(0, first - GAP) : first + size + GAP]] = 2
        part[rows[first : first + size]] = 1
    return part


def label_counts(labels: NDArray[Any], num_classes: int) -> Rows:
    """Return the images, pixels or boxes of each class in labels, see `ltsd.data.units`, int64 [N, C]; VOID and padding
    count nowhere.
    """
    classes = labels[..., 0] if unit_of(labels) == "box" else labels
    rows = classes.reshape(len(labels), -1)
    return np.stack([np.bincount(row[row >= 0].astype(np.int64), minlength=num_classes)[:num_classes] for row in rows])


def held_out_how(groups: Rows, fraction: float) -> str:
    """Return in words how `hold_out_groups` splits."""
    number = len(np.unique(groups))
    if number >= MANY:
        return f"{fraction:.3g} of the training examples, whole groups of {number}"
    return (
        f"{fraction:.3g} of the training examples, a block of consecutive ones of each of {number} groups, with {GAP} "
        f"left out at its ends"
    )


def bootstrap_blocks(groups: Rows) -> Rows:
    """Return what a bootstrap draws together, int64 [N]: groups, or where they are few, BLOCK consecutive images."""
    numbers, of_row, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(numbers) >= MANY:
        return of_row.astype(np.int64)
    places = np.zeros(len(groups), dtype=np.int64)
    for number in range(len(numbers)):
        places[of_row == number] = np.arange(sizes[number])
    return np.unique(np.stack([of_row, places // BLOCK], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
