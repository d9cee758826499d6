"""The validation protocol: the rows of a data set for training, validation and finals."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ltsd.config import DataConfig
from ltsd.data.groups import held_out_how, hold_out_groups, label_counts
from ltsd.data.longtail import Rows, long_tail_counts, shuffled_by_class
from ltsd.errors import UserError

BALANCED_UP_TO = 1.5
DEFAULT_IMBALANCE_RATIO = 50.0
FEWEST_IN_TAIL = 5
"""Images of the rarest class that the default tail has to leave: of smaller data people want what they have."""
RESERVE_FACTOR = 5


@dataclass(frozen=True)
class SplitIndices:
    """Row numbers into the training source.

    `train` and `val` are disjoint. `reserve` is `val` and, of every class, up to `RESERVE_FACTOR` times as many of
    the images that the simulated tail leaves unused. `complete` is the standard training set, without a validation
    set taken from it, on which finalists are retrained. `val_from` says where the validation images come from.
    """

    train: Rows
    val: Rows
    reserve: Rows
    complete: Rows
    imbalance_ratio: float
    simulated: bool
    val_from: str

    def moved(self, rows: Rows) -> Self:
        """Return the indices of the same images in a larger source."""
        parts: dict[str, Any] = {name: rows[getattr(self, name)] for name in ("train", "val", "reserve", "complete")}
        return replace(self, **parts)


def draw_protocol(
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    data: DataConfig,
    own_val: NDArray[np.int64] | None = None,
    groups: Rows | None = None,
) -> SplitIndices:
    """Split a training source into training and validation rows.

    A simulated tail takes validation images from those the draw left unused, and only what these lack
    from training images. Naturally long-tailed data give a stratified slice. Data that bring a validation split
    validate on that: whole, or under a simulated tail on as many images of every class as its smallest class has.

    Args:
        labels: [N] of the training images.
        own_val: [M] labels of the validation split that the data bring; its rows follow those of `labels`.
        groups: [N] of the training images, if a column names them; naturally long-tailed data are held out by them.

    Raises:
        UserError: fewer than two classes, an empty one, or one too small to give its validation images; groups and a
            simulated tail; as `hold_out_groups`.
    """
    if len(class_names) < 2:
        raise UserError(
            f"{data.source}: has one class, {', '.join(class_names)}, and nothing to tell apart; give data of "
            f"several, such as the folder that has a folder for each class"
        )
    by_class = shuffled_by_class(labels, len(class_names))
    counts = [len(rows) for rows in by_class]
    for name, count in zip(class_names, counts, strict=True):
        if count == 0:
            raise UserError(
                f"{data.source}: class {name!r} has no training example; remove it from the class names or add some"
            )
    ratio = data.imbalance_ratio
    is_natural = ratio is None and not _can_be_cut(counts, data)
    if own_val is not None:
        val = [rows + len(labels) for rows in shuffled_by_class(own_val, len(class_names))]
        return _with_own_validation(by_class, val, class_names, data, is_natural=is_natural)
    if groups is not None:
        if not is_natural:
            raise UserError(
                f"--data.group-by {data.group_by}: a simulated tail draws examples one by one, so that groups are torn "
                f"apart; leave one of the two out"
            )
        return _natural_by_groups(labels, class_names, data, groups)
    if is_natural:
        return _natural(by_class, class_names, data)
    return _simulated(by_class, class_names, data, ratio or DEFAULT_IMBALANCE_RATIO)


def _can_be_cut(counts: Sequence[int], data: DataConfig) -> bool:
    """Return whether classes are of about one size, and large enough for the default tail, or a tail is asked for."""
    is_asked, is_balanced = data.n_max is not None, max(counts) / min(counts) <= BALANCED_UP_TO
    return is_balanced and (is_asked or max(counts) >= FEWEST_IN_TAIL * DEFAULT_IMBALANCE_RATIO)


def _with_own_validation(
    by_class: list[Rows],
    val_by_class: list[Rows],
    class_names: Sequence[str],
    data: DataConfig,
    *,
    is_natural: bool,
) -> SplitIndices:
    """Return the split of data that bring a validation split: no validation image comes from the training images."""
    for name, rows in zip(class_names, val_by_class, strict=True):
        if not len(rows):
            raise UserError(
                f"{data.source}: class {name!r} has no example in the validation split; add some, or leave the split "
                f"out with --data.split-map validation=none: validation examples are taken from those of training then"
            )
    if is_natural:
        train = [rows[: data.n_max] for rows in by_class]
        counts = [len(rows) for rows in train]
        ratio, val, val_from = max(counts) / min(counts), val_by_class, "the data's own validation split, whole"
    else:
        ratio = data.imbalance_ratio or DEFAULT_IMBALANCE_RATIO
        train = _cut(by_class, class_names, data, ratio)
        fewest = min(map(len, val_by_class))
        val = [rows[:fewest] for rows in val_by_class]
        val_from = f"the data's own validation split, {fewest} of every class"
        if data.finalists != "train":
            raise UserError(
                f"--data.finalists {data.finalists}: the tail is simulated, and validation examples would change it; "
                f"leave the flag out"
            )
    both = [*train, *val] if data.finalists != "train" else train
    held = np.sort(np.concatenate(val))
    return SplitIndices(
        train=np.concatenate(train),
        val=held,
        reserve=held,
        complete=np.concatenate(both),
        imbalance_ratio=ratio,
        simulated=not is_natural,
        val_from=val_from,
    )


def _cut(by_class: list[Rows], class_names: Sequence[str], data: DataConfig, ratio: float) -> list[Rows]:
    """Return the training rows of every class under a simulated tail.

    Raises:
        UserError: a class has fewer images than the tail asks for, or the tail asks for none.
    """
    wanted = long_tail_counts(data.n_max or len(by_class[0]), ratio, len(by_class), data.tail)
    for name, rows, want in zip(class_names, by_class, wanted, strict=True):
        if len(rows) < want or want == 0:
            remedy = "a smaller --data.n-max or another --data.imbalance-ratio"
            remedy = remedy if want else "a smaller --data.imbalance-ratio, where 1 keeps the data balanced"
            raise UserError(
                f"{data.source}: class {name!r} has {len(rows)} examples and the tail asks for {want}; set {remedy}"
            )
    return [rows[:count] for rows, count in zip(by_class, wanted, strict=True)]


def _simulated(by_class: list[Rows], class_names: Sequence[str], data: DataConfig, ratio: float) -> SplitIndices:
    kept = _cut(by_class, class_names, data, ratio)
    train: list[Rows] = []
    val: list[Rows] = []
    for name, rows, keep in zip(class_names, by_class, kept, strict=True):
        spare = rows[len(keep) :][: data.val_per_class]
        missing = data.val_per_class - len(spare)
        if missing >= len(keep):
            raise UserError(
                f"{data.source}: class {name!r} has {len(rows)} examples, too few to give {data.val_per_class} to "
                f"validation and train on the rest; set a smaller --data.val-per-class"
            )
        val.append(np.concatenate([spare, keep[len(keep) - missing :]]))
        train.append(keep[: len(keep) - missing])
    reserve = [
        np.concatenate([held, rows[len(keep) :][data.val_per_class : RESERVE_FACTOR * data.val_per_class]])
        for held, rows, keep in zip(val, by_class, kept, strict=True)
    ]
    return SplitIndices(
        train=np.concatenate(train),
        val=np.concatenate(val),
        reserve=np.concatenate(reserve),
        complete=np.concatenate(kept),
        imbalance_ratio=ratio,
        simulated=True,
        val_from=f"{data.val_per_class} of every class, from those that the tail leaves unused first",
    )


def _natural(by_class: list[Rows], class_names: Sequence[str], data: DataConfig) -> SplitIndices:
    by_class = [rows[: data.n_max] for rows in by_class]
    train: list[Rows] = []
    val: list[Rows] = []
    for name, rows in zip(class_names, by_class, strict=True):
        held_out = max(1, round(len(rows) * data.val_fraction))
        if held_out >= len(rows):
            raise UserError(
                f"{data.source}: class {name!r} has {len(rows)} training example(s), too few to give one to "
                f"validation and train on the rest; add some or leave the class out"
            )
        val.append(rows[:held_out])
        train.append(rows[held_out:])
    counts = [len(rows) for rows in by_class]
    return SplitIndices(
        train=np.concatenate(train),
        val=np.concatenate(val),
        reserve=np.concatenate(val),
        complete=np.concatenate(by_class),
        imbalance_ratio=max(counts) / min(counts),
        simulated=False,
        val_from=f"{data.val_fraction:.3g} of the training examples of every class",
    )


def _natural_by_groups(
    labels: NDArray[np.int64], class_names: Sequence[str], data: DataConfig, groups: Rows
) -> SplitIndices:
    if data.n_max is not None:
        raise UserError(f"--data.n-max {data.n_max}: cuts classes image by image; leave it or --data.group-by out")
    counts = label_counts(labels, len(class_names))
    train, val = hold_out_groups(groups, counts, data.val_fraction, source=data.source, class_names=class_names)
    sizes = counts.sum(0)
    return SplitIndices(
        train=train,
        val=val,
        reserve=val,
        complete=np.arange(len(labels)),
        imbalance_ratio=float(sizes.max() / sizes.min()),
        simulated=False,
        val_from=held_out_how(groups, data.val_fraction),
    )
