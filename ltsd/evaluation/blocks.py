"""Blocks: dependent test images, such as frames of one video, that a bootstrap draws together."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltsd.errors import UserError


class HasBlocks(Protocol):
    """The results of an exam on N images; `blocks` are int64 [N], equal for images that are drawn together."""

    @property
    def blocks(self) -> Tensor | None:
        """The blocks; None if each image is drawn by itself."""


def blocks_of(found: Sequence[HasBlocks]) -> Tensor | None:
    """Return the blocks of several exams on the same images. Exams without blocks are ignored; None if none has blocks.

    Raises:
        UserError: the exams disagree.
    """
    known = [one.blocks for one in found if one.blocks is not None]
    if any(not torch.equal(blocks, known[0]) for blocks in known):
        raise UserError(
            "the exams were made with different groups of test images (--data.group-by) and cannot be resampled "
            "together; examine the models with the same groups"
        )
    return known[0] if known else None


def draw_images(images: int, blocks: Tensor | None, rng: np.random.Generator, *, resamples: int) -> NDArray[np.int64]:
    """Return how often each image is drawn, int64 [resamples, images]. If there are blocks, whole blocks are drawn
    (Künsch 1989).
    """
    of_image = np.arange(images) if blocks is None else np.unique(blocks.numpy(), return_inverse=True)[1]
    count = int(of_image.max()) + 1
    drawn: NDArray[np.int64] = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn if blocks is None else drawn[:, of_image]
