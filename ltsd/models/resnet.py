"""ResNet-18 and PreActResNet-18 with the CIFAR stem: a 3x3 convolution of stride 1 and no pooling (He et al. 2016)."""

from collections.abc import Callable

from torch import nn

from ltsd.models.blocks import Normalise, PreActBlock, ResidualBlock, conv3x3, normalised, pooled
from ltsd.models.network import Features

STAGES, BLOCKS = 4, 2


def resnet18(channels: int, width: int) -> tuple[Features, int]:
    """Four stages of two residual blocks; at `width` 64 and 10 classes 11,173,962 parameters, as published."""
    stem = [Normalise(), conv3x3(channels, width), *normalised(width)]
    return Features(*stem, *_stages(ResidualBlock, width), *pooled()), 8 * width


def preact_resnet18(channels: int, width: int) -> tuple[Features, int]:
    """The same with activation before convolution, and BatchNorm before pooling: 11,172,170 parameters at 64."""
    stem = [Normalise(), conv3x3(channels, width)]
    return Features(*stem, *_stages(PreActBlock, width), *normalised(8 * width), *pooled()), 8 * width


def _stages(block: Callable[[int, int, int], nn.Module], width: int) -> list[nn.Module]:
    blocks: list[nn.Module] = []
    channels_in = width
    for stage in range(STAGES):
        for index in range(BLOCKS):
            stride = 2 if stage > 0 and index == 0 else 1
            blocks.append(block(channels_in, width * 2**stage, stride))
            channels_in = width * 2**stage
    return blocks
