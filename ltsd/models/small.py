"""Small residual networks that train on one core: in seconds on 8x8 images, in minutes on 32x32."""

from torch import nn

from ltsd.models.blocks import Normalise, ResidualBlock, conv3x3, normalised, pooled
from ltsd.models.network import Features


def small_cnn(channels: int, width: int) -> tuple[Features, int]:
    """A stem of `width` channels at half the resolution, a residual block of twice as many at a quarter."""
    stem = [Normalise(), conv3x3(channels, width, stride=2), *normalised(width)]
    return Features(*stem, ResidualBlock(width, 2 * width, stride=2), *pooled()), 2 * width


def small_resnet(channels: int, width: int) -> tuple[Features, int]:
    """A stem of `width` channels at half the resolution and three residual blocks of 1, 2 and 4 times as many."""
    return Features(Normalise(), *residual_stages(channels, width)), 4 * width


def residual_stages(channels: int, width: int) -> list[nn.Module]:
    """The layers of `small_resnet` behind what prepares its input: [B, channels, H, W] -> [B, 4 * width]."""
    return [
        conv3x3(channels, width, stride=2),
        *normalised(width),
        ResidualBlock(width, width, stride=1),
        ResidualBlock(width, 2 * width, stride=2),
        ResidualBlock(2 * width, 4 * width, stride=2),
        *pooled(),
    ]
