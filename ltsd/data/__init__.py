"""From a source to the splits a run uses: which images train, validate and test, and on which device."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ltsd.config import DataConfig
from ltsd.data.batches import Split
from ltsd.data.longtail import draw_protocol, shuffled_by_class
from ltsd.data.sources import decoded, read_decoded
from ltsd.errors import UserError


@dataclass(frozen=True)
class Splits:
    """What one data configuration means.

    `reserve` holds `val` and more images for a last choice; `complete` is the training set of finalists; `test` is
    balanced where the source's is, and is read by finalists only; `fingerprint` names the images, which lie decoded in
    `folder`.
    """

    train: Split
    val: Split
    reserve: Split
    complete: Split
    test: Split
    class_names: tuple[str, ...]
    imbalance_ratio: float
    simulated: bool
    fingerprint: str
    folder: Path

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image."""
        return tuple(self.train.images.shape[1:])


def load_splits(data: DataConfig, *, check: bool = False, folder: Path | None = None) -> Splits:
    """Load the source, with `check` against its checksum; draw its tail and its validation set.

    Args:
        folder: where the source lies decoded already; the source itself is not looked at then.

    Raises:
        UserError: as `decoded` and `draw_protocol` do; a class without a test image.
    """
    folder = decoded(data, check=check) if folder is None else folder
    source = read_decoded(folder)
    names = source.train.class_names
    protocol = draw_protocol(source.train.labels.numpy(), names, data)
    train = Split(source.train.images, source.train.labels, torch.from_numpy(protocol.train), len(names))
    test_rows = torch.arange(len(source.test.labels))
    by_class = shuffled_by_class(source.test.labels.numpy(), len(names))
    for name, rows in zip(names, by_class, strict=True):
        if not len(rows):
            raise UserError(
                f"{data.source}: class {name!r} has no test image, so that nothing can be said of it; add some, leave "
                f"the class out, or take the test images away: a share of all is held out then"
            )
    if data.test_per_class is not None:
        test_rows = torch.cat([torch.from_numpy(rows[: data.test_per_class]) for rows in by_class])
    return Splits(
        train=train,
        val=train.select(torch.from_numpy(protocol.val)),
        reserve=train.select(torch.from_numpy(protocol.reserve)),
        complete=train.select(torch.from_numpy(protocol.complete)),
        test=Split(source.test.images, source.test.labels, test_rows, len(names)),
        class_names=names,
        imbalance_ratio=protocol.imbalance_ratio,
        simulated=protocol.simulated,
        fingerprint=source.fingerprint,
        folder=folder,
    )
