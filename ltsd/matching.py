"""The rows of a detector: locations that answer for a box, and mined background."""

import torch
from torch import Tensor, nn

from ltsd.locations import BOX, NONE, matched
from ltsd.losses import box_losses

MINED = 3
"""Locations of background for each that answers for a box (Liu et al. 2016, SSD)."""


def targets_of(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return what locations are to answer, float32 [B, L, 5]: a class, and the distances of a box as in `matched`.

    The background is the class after the last one. Of each image MINED times as many locations of it as answer for a
    box are rows, at least MINED: those that the network takes most for an object. The others have class NONE.

    Args:
        network: images [B, C, H, W] in [0, 1] -> [B, L, num_classes + 1 + BOX].
        inputs: the clean images.
        labels: boxes float32 [B, M, 5], see `ltsd.locations`.
    """
    classes, distances = matched(labels, *inputs.shape[2:])
    with torch.no_grad():
        logits = network(inputs)[..., :-BOX]
    background, empty = logits.shape[-1] - 1, classes < 0
    looks_full = logits[..., :-1].logsumexp(-1) - logits[..., -1]
    order = looks_full.masked_fill(~empty, -torch.inf).argsort(dim=1, descending=True, stable=True)
    wanted = MINED * (~empty).sum(1, keepdim=True).clamp_min(1)
    is_mined = empty & (order.argsort(dim=1) < wanted)
    kinds = torch.where(is_mined, background, classes)
    return torch.cat([kinds[..., None].float(), distances], -1)


class Locations(nn.Module):
    """A network that answers rows: the locations of a batch whose class in `targets` is not NONE, laid end to end.

    An input of several batches, [k * B, C, H, W], gives [k * R, num_classes + 1], batch by batch.
    """

    def __init__(self, network: nn.Module, targets: Tensor) -> None:
        super().__init__()
        self.network, self.size = network, len(targets)
        self.of_locations = targets.flatten(0, 1)
        self.kept = (self.of_locations[:, 0] != NONE).nonzero().flatten()
        self._last: tuple[Tensor, Tensor] | None = None

    @property
    def labels(self) -> Tensor:
        """The classes of the rows, int64 [R]."""
        return self.of_locations[self.kept, 0].long()

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [k * B, C, H, W] in [0, 1] -> logits [k * R, num_classes + 1]."""
        last, self._last = self._last, None
        answers = last[1] if last is not None and last[0] is inputs else self.network(inputs)
        rows = answers[..., :-BOX].reshape(len(inputs) // self.size, -1, answers.shape[-1] - BOX)
        return rows.index_select(1, self.kept).flatten(0, 1)

    def box_losses(self, inputs: Tensor) -> Tensor:
        """Return the loss of the box of each location that answers for one, see `ltsd.losses.box_losses`.

        The same images may be classified next: the network does not see them twice.
        """
        answers = self.network(inputs)
        self._last = inputs, answers
        has_box = (self.of_locations[:, 0] != NONE) & (self.of_locations[:, 0] < answers.shape[-1] - BOX - 1)
        return box_losses(answers.flatten(0, 1)[has_box, -BOX:], self.of_locations[has_box, 1:])
