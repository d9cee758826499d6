"""Splits of a run: the training, validation and test images of a source."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ltsd.config import DataConfig
from ltsd.data import many_labels
from ltsd.data.batches import Split
from ltsd.data.groups import bootstrap_blocks
from ltsd.data.layouts.reading import Reading
from ltsd.data.longtail import check_groups, shuffled_by_class
from ltsd.data.overlap import overlap, repeated, without_copies
from ltsd.data.protocol import SplitIndices, draw_protocol
from ltsd.data.sources import Source, decoded, read_decoded
from ltsd.data.units import unit_of
from ltsd.errors import UserError

Rows = NDArray[np.int64]
TRAINED_ON = {
    "train": "the training split alone",
    "train+validation": "the training and the validation split",
}


@dataclass(frozen=True)
class Splits:
    """The splits of a data configuration.

    `train` trains trials, `val` scores them, `reserve` holds `val` and more images for the race. `complete` is the
    training set of final runs. `test` is balanced if the source's test set is, and only final runs read it. `val_from`
    tells where `val` comes from and `finalists` what `complete` is, if the data bring a validation split. `fingerprint`
    identifies the images, which are decoded in `folder`. `reading` tells what was read, and `copies` counts images that
    are equal pixel by pixel. `test_blocks` is int64 [N], equal for test images that a bootstrap draws together; None if
    every one is by itself.
    """

    train: Split
    val: Split
    reserve: Split
    complete: Split
    test: Split
    class_names: tuple[str, ...]
    imbalance_ratio: float
    simulated: bool
    val_from: str
    finalists: str
    fingerprint: str
    folder: Path
    reading: Reading
    copies: Mapping[str, int]
    test_blocks: Rows | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of an input, as of a split."""
        return self.train.shape


def load_splits(data: DataConfig, *, check: bool = False, folder: Path | None = None) -> Splits:
    """Load the source, draw its tail and its validation set.

    Args:
        data: the data configuration.
        check: verify the decoded images against their checksum.
        folder: folder with the decoded source; the source itself is not read then.

    Raises:
        UserError: as `decoded`, `draw_protocol` and `check_groups` raise it; a class has no test image.
    """
    folder = decoded(data, check=check) if folder is None else folder
    source = read_decoded(folder)
    names, train_set, test_set = source.train.class_names, source.train, source.test
    test_rows = _test_rows(source, data)
    protocol, copies = _drawn(source, test_rows, data)
    split_of = partial(Split, num_classes=len(names), resident_gib=data.resident_gib, vocabulary=source.vocabulary)
    train = split_of(train_set.images, train_set.labels, torch.from_numpy(protocol.train))
    complete = train.select(torch.from_numpy(protocol.complete))
    check_groups(complete.class_counts(), data.groups, unit_of(train_set.labels))
    brings = source.validation_from < len(train_set.labels)
    return Splits(
        train=train,
        val=train.select(torch.from_numpy(protocol.val)),
        reserve=train.select(torch.from_numpy(protocol.reserve)),
        complete=complete,
        test=split_of(test_set.images, test_set.labels, torch.from_numpy(test_rows)),
        class_names=names,
        imbalance_ratio=protocol.imbalance_ratio,
        simulated=protocol.simulated,
        val_from=protocol.val_from,
        finalists=TRAINED_ON[data.finalists] if brings else "",
        fingerprint=source.fingerprint,
        folder=folder,
        reading=source.reading,
        copies=copies,
        test_blocks=None if test_set.groups is None else bootstrap_blocks(test_set.groups[test_rows]),
    )


def _test_rows(source: Source, data: DataConfig) -> Rows:
    """Return the rows of the test set in use.

    Raises:
        UserError: a class has none.
    """
    labels, names = source.test.labels.numpy(), source.test.class_names
    if unit_of(labels) != "image":
        return many_labels.test_rows(labels, names, data.source, source.test.images.shape[2:])
    by_class = shuffled_by_class(labels, len(names))
    for name, rows in zip(names, by_class, strict=True):
        if not len(rows):
            if source.reading.is_test_held_out:
                raise UserError(
                    f"{data.source}: class {name!r} has nothing at all; add some, leave the class out, or number the "
                    f"classes without a gap"
                )
            raise UserError(
                f"{data.source}: class {name!r} has no test example, so that nothing can be said of it; add some, "
                f"leave the class out, or take the test split away: a share of all is held out then"
            )
    if data.test_per_class is None:
        return np.arange(len(labels))
    return np.concatenate([rows[: data.test_per_class] for rows in by_class])


def _drawn(source: Source, test_rows: Rows, data: DataConfig) -> tuple[SplitIndices, dict[str, int]]:
    """Draw the split indices, and count the images that serve twice.

    An image that is held out of training is held out with all its copies: no run trains on them.

    Raises:
        UserError: as `draw_protocol` raises it; more than 1% of a split are in another one, and that is not allowed.
    """
    first, names = source.validation_from, source.train.class_names
    labels, hashes = source.train.labels.numpy(), source.train.hashes
    own_val = labels[first:] if first < len(labels) else None
    test_hashes = source.test.hashes[test_rows]
    size = source.train.images.shape[2:]
    drops = data.duplicates == "refuse"
    rows = np.arange(first)
    if drops and source.reading.is_test_held_out:
        rows = without_copies(rows, hashes, labels, source.test.hashes, data, names, size)
    groups = None if source.train.groups is None else source.train.groups[rows]
    if unit_of(labels) == "image":
        drawn = draw_protocol(labels[rows], names, data, own_val, groups)
    else:
        drawn = many_labels.draw_images(labels[rows], names, data, own_val, groups, size)
    protocol = drawn.moved(np.append(rows, np.arange(first, len(labels))))
    train = protocol.train
    if drops and own_val is None:
        train = without_copies(train, hashes, labels, hashes[protocol.val], data, names, size)
    counts = {
        "training examples that repeat another one": repeated(hashes[:first]),
        "validation examples that repeat another one": repeated(hashes[protocol.val]),
        "test examples that repeat another one": repeated(test_hashes),
        "training examples left out, as copies of held-out test examples": first - len(rows),
        "training examples left out of trials, as copies of validation examples": len(protocol.train) - len(train),
        "examples both trained on and validated on": overlap(
            ("training", "validation"), hashes[train], hashes[protocol.val], data
        ),
        "examples both trained on and tested on": overlap(
            ("training", "test"), hashes[protocol.complete], test_hashes, data
        ),
        "examples both validated on and tested on": overlap(
            ("validation", "test"), hashes[protocol.val], test_hashes, data
        ),
    }
    return replace(protocol, train=train), {what: count for what, count in counts.items() if count}
