"""A split on the device as tensors, and its training batches."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self, cast

import torch
from torch import Tensor

from ltsd.data.augment import augmented
from ltsd.data.counts import class_counts
from ltsd.data.encoded import EncodedImages, Stored
from ltsd.data.streaming import GIB, Streamed, on_device, room_on
from ltsd.data.units import ITEMS, kind_of, unit_of
from ltsd.data.vocabulary import Vocabulary

LARGEST = {"image": 255, "clip": 32768}
"""What stored values are divided by, by kind."""


@dataclass(frozen=True)
class Split:
    """Rows of an image set. `images` is uint8 [M, C, H, W], or what else `ltsd.data.units` names; `labels` int64 [M],
    or uint8 [M, H, W] with VOID where a pixel has none, or boxes float32 [M, K, 5], see `ltsd.locations`; `rows` int64
    [N] into both.

    On the CPU, `images` may be a memory map that other processes share; it is never copied. Where they are more than
    `resident_gib`, None for half of the free memory, they stay on the CPU on every device, are read ahead and never
    held as a whole; nobody who takes batches notices. `class_weights` [C] weigh
    what training learns of each class; None for all alike. `vocabulary` has the vectors of the word pieces of
    texts.
    """

    images: Stored | Streamed
    labels: Tensor
    rows: Tensor
    num_classes: int
    class_weights: Tensor | None = None
    vocabulary: Vocabulary | None = None
    resident_gib: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an input: (C, H, W) of an image, (C, T) of a clip, (D, L) of a text."""
        stored = tuple(self.images.shape[1:])
        return stored if self.vocabulary is None else (self.vocabulary.vectors.shape[1], *stored)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def items(self) -> str:
        """What its inputs are called: images, clips or texts."""
        return ITEMS[kind_of(self.images)]

    @property
    def nbytes(self) -> int:
        """The bytes of its stored rows, decoded."""
        return len(self) * math.prod(self.images.shape[1:]) * self.images.dtype.itemsize

    def class_counts(self) -> list[int]:
        """Return how often every class occurs, in label order; see `ltsd.data.counts`."""
        size = self.images.shape[2:]
        counts: list[int] = class_counts(self.labels, self.num_classes, size, self.rows).tolist()
        return counts

    def take(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs, as `inputs` does, and labels [B, ...] at positions [B] of the split."""
        rows = self.rows[positions]
        return self.inputs(self.images[rows]), self.labels[rows]

    def inputs(self, stored: Tensor) -> Tensor:
        """Return what a network reads of stored rows, float32: images [B, C, H, W] in [0, 1], sound [B, C, T] in
        [-1, 1], the vectors of the word pieces of texts [B, D, L].
        """
        if self.vocabulary is not None:
            return self.vocabulary.vectors[stored].transpose(1, 2)
        return stored.float() / LARGEST[kind_of(stored)]

    def chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the whole split in order; the last chunk may be smaller."""
        batches = self.rows.split(size)  # type: ignore[no-untyped-call]
        for rows, stored in zip(batches, self.stored(batches), strict=True):
            yield self.inputs(stored), self.labels[rows]

    def stored(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the stored rows of each batch of rows, [B, ...], read ahead where they are streamed."""
        if isinstance(self.images, Streamed):
            return self.images.ahead(batches)
        images = self.images
        return (images[rows] for rows in batches)

    def first_of_each_class(self, classes: int) -> tuple[Tensor, Tensor]:
        """Return the first image of each of the first `classes` classes at most, as `take` does."""
        labels = self.labels[self.rows]
        firsts = [(labels == c).nonzero()[0] for c in range(min(classes, self.num_classes))]
        return self.take(torch.cat(firsts))

    def select(self, rows: Tensor) -> Self:
        """Return other rows of the same images."""
        return replace(self, rows=rows)

    def to(self, device: torch.device) -> Self:
        """Return the split on a device, with only its own rows copied there; on the CPU, the split itself. A split that
        does not fit is streamed.
        """
        if isinstance(self.images, Streamed):
            return self
        limit = room_on(device) if self.resident_gib is None else int(self.resident_gib * GIB)
        fits = self.nbytes <= limit
        if device.type == "cpu":
            streams = isinstance(self.images, EncodedImages) or not fits
            return replace(self, images=Streamed(self.images, device, limit)) if streams else self
        rest = replace(
            self,
            class_weights=None if self.class_weights is None else self.class_weights.to(device),
            vocabulary=None if self.vocabulary is None else self.vocabulary.to(device),
        )
        if not fits:
            # Maps are large too; other labels are not, and are looked at as a whole.
            is_large = unit_of(self.labels) == "pixel"
            labels = cast(Tensor, Streamed(self.labels, device, limit)) if is_large else self.labels.to(device)
            return replace(rest, images=Streamed(self.images, device, limit), labels=labels, rows=self.rows.to(device))
        return replace(
            rest,
            images=on_device(self.images, self.rows, device),
            labels=on_device(self.labels, self.rows, device),
            rows=torch.arange(len(self), device=device),
        )

    def whereabouts(self) -> str:
        """Return in words whether images are resident or streamed, with the sizes; for a split that `to` returned."""
        size = f"{self.nbytes / GIB:.3g} GiB"
        if not isinstance(self.images, Streamed):
            device = self.rows.device
            return f"{size}, {'one file, mapped into memory' if device.type == 'cpu' else f'resident on {device}'}"
        limit, how = self.images.limit, "streamed"
        if isinstance(self.images.stored, EncodedImages):
            how = "stored encoded, decoded on the fly"
        why = f"; more than {limit / GIB:.3g} GiB (--data.resident-gib)" if self.nbytes > limit else ""
        return f"{size}, {how} to {self.images.device}{why}"


def epoch_batches(
    split: Split, batch_size: int, augmentation: str, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one shuffled pass in batches of one size; images that do not fill a batch wait for another epoch.

    Args:
        split: on the generator's device.
        batch_size: images a batch; a smaller split is one batch.
        augmentation: as in `augment`.
        generator: draws order and augmentation.

    Yields:
        Inputs as `Split.inputs` returns them, and labels [B, ...]; labels of pixels and boxes move with the image.
    """
    size = min(batch_size, len(split))
    order = torch.randperm(len(split), generator=generator, device=generator.device)
    batches = split.rows[order[: len(split) // size * size]].split(size)  # type: ignore[no-untyped-call]
    for rows, stored in zip(batches, split.stored(batches), strict=True):
        images, labels = augmented(stored, split.labels[rows], augmentation, generator, split.vocabulary)
        yield split.inputs(images), labels
