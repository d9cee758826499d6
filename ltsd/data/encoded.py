"""Images that stay as they were encoded, in JPEG or PNG, and are decoded by threads when they are read."""

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltsd.data.decode import Size, decode_image
from ltsd.data.on_disk import Spool

MOST_THREADS = 16
CHUNK = 256
"""Images decoded at a time where all are read."""


class EncodedImages:
    """Images uint8 [N, 3, H, W] whose rows are decoded as they are indexed: the same pixels as `decode_image` gives.

    Args:
        content: the bytes of all images, one after the other, uint8 [B]; a map of a file.
        ends: where each image ends, int64 [N].
        shape: (3, H, W).
        size: (width, height) that images are resized to; None for their own.
    """

    dtype = torch.uint8

    def __init__(
        self, content: NDArray[np.uint8], ends: NDArray[np.int64], shape: Sequence[int], size: Size | None
    ) -> None:
        self.content, self.ends, self.size = content, ends, size
        self.shape = (len(ends), *shape)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Return decoded rows, uint8 [B, 3, H, W], or [3, H, W] of one."""
        wanted = torch.arange(len(self))[rows]
        into = torch.empty((wanted.numel(), *self.shape[1:]), dtype=torch.uint8)
        return self.decoded(wanted.flatten(), into).reshape(*wanted.shape, *self.shape[1:])

    def decoded(self, rows: Tensor, into: Tensor) -> Tensor:
        """Write decoded rows [B] to memory, uint8 [B, 3, H, W], and return it."""
        found, pixels = rows.tolist(), into.numpy()

        def decode(place: int) -> None:
            row = found[place]
            pixels[place] = decode_image(self.bytes_of(row).tobytes(), f"image {row} of the cache", self.size)[0]

        list(_threads(os.getpid()).map(decode, range(len(found))))
        return into

    def bytes_of(self, row: int) -> NDArray[np.uint8]:
        """Return the encoded image of a row, uint8 [B]."""
        return self.content[int(self.ends[row - 1]) if row else 0 : int(self.ends[row])]

    def select(self, rows: NDArray[np.int64], folder: Path) -> Self:
        """Return other rows, whose bytes are in a temporary file of a folder."""
        return type(self).joined([(self, row) for row in rows.tolist()], folder)

    @classmethod
    def joined(cls, members: Sequence[tuple["EncodedImages", int]], folder: Path) -> Self:
        """Return rows of several sets, by set and row, whose bytes are in a temporary file of a folder."""
        spool, sizes = Spool(folder), []
        for images, row in members:
            one = images.bytes_of(row)
            spool.add(one)
            sizes.append(len(one))
        first = members[0][0]
        return cls(spool.mapped(), np.cumsum(np.asarray(sizes, dtype=np.int64)), first.shape[1:], first.size)


@functools.cache
def _threads(process: int) -> ThreadPoolExecutor:
    """Return the threads of a process: those of a parent are not in its fork."""
    return ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1), "decoding")


Stored = Tensor | EncodedImages
"""Rows [N, ...] on the CPU."""


def chunks(images: Any) -> Any:
    """Yield all images in order, decoded, as arrays."""
    for start in range(0, len(images), CHUNK):
        yield images[start : start + CHUNK].numpy()
