"""A small dense detector without anchors that trains on one core (after Tian et al. 2019, FCOS)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.locations import BOX, STRIDES
from ltsd.models.blocks import Normalise, ResidualBlock, conv3x3, normalised
from ltsd.models.network import Features, Head

GROUPS = 4
TOWER = 1


class Pyramid(nn.Module):
    """The backbone's levels at STRIDES, from the last one down each added to the one before (Lin et al. 2017, FPN), and
    a tower of convolutions that all levels share.

    The tower has GroupNorm: the levels have different statistics, and BatchNorm would average them.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        steps = pairwise(channels)
        self.down = nn.ModuleList(ResidualBlock(coming, going, stride=2) for coming, going in steps)
        self.lateral = nn.ModuleList(nn.Conv2d(of_level, width, 1) for of_level in channels[1:])
        tower = [
            layer for _ in range(TOWER) for layer in (conv3x3(width, width), nn.GroupNorm(GROUPS, width), nn.ReLU())
        ]
        self.tower = nn.Sequential(*tower)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [B, channels[0], H / 2, W / 2] to the features of all locations, [B, L, width]."""
        levels = []
        for down, lateral in zip(self.down, self.lateral, strict=True):
            inputs = down(inputs)
            levels.append((inputs, lateral))
        merged: list[Tensor] = []
        for level, lateral in reversed(levels):
            own = lateral(level)
            if merged:
                own = own + F.interpolate(merged[-1], size=own.shape[2:], mode="nearest")
            merged.append(own)
        towers = [self.tower(level).flatten(2) for level in reversed(merged)]
        return torch.cat(towers, 2).transpose(1, 2)


def small_fcos(channels: int, width: int) -> tuple[Features, int]:
    """A stem of `width` channels at half the resolution, levels of 2, 4 and 4 times as many, features of 4 times."""
    stem = [Normalise(), conv3x3(channels, width, stride=2), *normalised(width)]
    of_levels = [width, 2 * width, *(4 * width for _ in STRIDES[1:])]
    return Features(*stem, Pyramid(of_levels, 4 * width)), 4 * width


class DetectionHead(nn.Module):
    """The answer of every location: logits of the classes and of the background, which is the last, and its box.

    Methods may bring their own head for classes.
    """

    def __init__(self, size: int, num_classes: int, head: Head) -> None:
        super().__init__()
        self.classes = head(size, num_classes + 1)
        self.box = nn.Linear(size, BOX)

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, L, size] -> [B, L, num_classes + 1 + BOX], see `ltsd.locations`."""
        return torch.cat([self.classes(features), self.box(features)], -1)
