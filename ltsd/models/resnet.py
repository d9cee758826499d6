"""ResNet-18 with the CIFAR stem: a 3x3 convolution of stride 1 and no pooling (He et al. 2016)."""

from torch import nn

from ltsd.models.blocks import Normalise, ResidualBlock


def resnet18(channels: int, num_classes: int, width: int) -> nn.Sequential:
    """Four stages of two residual blocks; `width` is 64 as published, 11,173,962 parameters for 10 classes."""
    blocks: list[nn.Module] = []
    channels_in = width
    for stage in range(4):
        for index in range(2):
            stride = 2 if stage > 0 and index == 0 else 1
            blocks.append(ResidualBlock(channels_in, width * 2**stage, stride))
            channels_in = width * 2**stage
    return nn.Sequential(
        Normalise(),
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels_in, num_classes),
    )
