"""A small encoder-decoder with skip connections that trains on one core (after Ronneberger et al. 2015, U-Net)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.models.blocks import Normalise, ResidualBlock, conv3x3, normalised
from ltsd.models.network import Features


class ChannelsLast(nn.Module):
    """[B, D, H, W] -> [B, H, W, D]: a head that maps features [..., D] classifies every pixel."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Move the channels to the end."""
        return inputs.permute(0, 2, 3, 1)


class Level(nn.Module):
    """Half the resolution, whatever `inner` does there, back, and a convolution of both resolutions together."""

    def __init__(self, width: int, inner: nn.Module) -> None:
        super().__init__()
        self.down = ResidualBlock(width, 2 * width, stride=2)
        self.inner = inner
        self.merge = nn.Sequential(conv3x3(3 * width, width), *normalised(width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [B, width, H, W] to the same shape."""
        coarse = F.interpolate(self.inner(self.down(inputs)), size=inputs.shape[2:], mode="nearest")
        merged: Tensor = self.merge(torch.cat([inputs, coarse], 1))
        return merged


def small_unet(channels: int, width: int) -> tuple[Features, int]:
    """A stem of `width` channels at full resolution, and levels of twice and four times as many at 1/2 and 1/4."""
    stem = [Normalise(), conv3x3(channels, width), *normalised(width)]
    return Features(*stem, Level(width, Level(2 * width, nn.Identity())), ChannelsLast()), width
