"""A split on the device as tensors, and its training batches."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from ltsd.data.augment import augmented
from ltsd.data.counts import class_counts
from ltsd.data.units import kind_of

LARGEST = {"image": 255, "clip": 32768}
"""What stored values are divided by, by kind."""


@dataclass(frozen=True)
class Split:
    """Rows of an image set. `images` is uint8 [M, C, H, W], or what else `ltsd.data.units` names; `labels` int64 [M],
    or uint8 [M, H, W] with VOID where a pixel has none, or boxes float32 [M, K, 5], see `ltsd.locations`; `rows` int64
    [N] into both.

    On the CPU, `images` may be a memory map that other processes share; it is never copied. `class_weights` [C] weigh
    what training learns of each class; None for all alike. `vectors` [V, D] are the embeddings of the tokens of texts.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor
    num_classes: int
    class_weights: Tensor | None = None
    vectors: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an input: (C, H, W) of an image, (C, T) of a clip, (D, L) of a text."""
        stored = tuple(self.images.shape[1:])
        return stored if self.vectors is None else (self.vectors.shape[1], *stored)

    def __len__(self) -> int:
        return len(self.rows)

    def class_counts(self) -> list[int]:
        """Return how often every class occurs, in label order; see `ltsd.data.counts`."""
        counts: list[int] = class_counts(self.labels[self.rows], self.num_classes, self.images.shape[2:]).tolist()
        return counts

    def take(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs, as `inputs` does, and labels [B, ...] at positions [B] of the split."""
        rows = self.rows[positions]
        return self.inputs(self.images[rows]), self.labels[rows]

    def inputs(self, stored: Tensor) -> Tensor:
        """Return what a network reads of stored rows, float32: images [B, C, H, W] in [0, 1], sound [B, C, T] in
        [-1, 1], the embeddings of the tokens of texts [B, D, L].
        """
        if self.vectors is not None:
            return self.vectors[stored].transpose(1, 2)
        return stored.float() / LARGEST[kind_of(stored)]

    def chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the whole split in order; the last chunk may be smaller."""
        for positions in torch.arange(len(self), device=self.rows.device).split(size):  # type: ignore[no-untyped-call]
            yield self.take(positions)

    def first_of_each_class(self, classes: int) -> tuple[Tensor, Tensor]:
        """Return the first image of each of the first `classes` classes at most, as `take` does."""
        labels = self.labels[self.rows]
        firsts = [(labels == c).nonzero()[0] for c in range(min(classes, self.num_classes))]
        return self.take(torch.cat(firsts))

    def select(self, rows: Tensor) -> Self:
        """Return other rows of the same images."""
        return replace(self, rows=rows)

    def to(self, device: torch.device) -> Self:
        """Return the split on a device, with only its own rows copied there; on the CPU, the split itself."""
        if device.type == "cpu":
            return self
        return replace(
            self,
            images=self.images[self.rows].to(device),
            labels=self.labels[self.rows].to(device),
            rows=torch.arange(len(self), device=device),
            class_weights=None if self.class_weights is None else self.class_weights.to(device),
            vectors=None if self.vectors is None else self.vectors.to(device),
        )


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
    for start in range(0, len(split) - size + 1, size):
        rows = split.rows[order[start : start + size]]
        images, labels = augmented(split.images[rows], split.labels[rows], augmentation, generator)
        yield split.inputs(images), labels
