"""Parts that architectures share: input normalisation, stem, pooling and the residual blocks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RATES = ("p", "drop_prob", "drop_rate", "_drop_connect_rate", "dropout", "attention_dropout")
"""The attributes in which layers of torch, timm, torchvision and segmentation-models-pytorch keep what is dropped."""


class Normalise(nn.Module):
    """(x - 0.5) / 0.25: maps images in [0, 1] to [-2, 2] whatever the data set."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise inputs [B, C, H, W]."""
        return (inputs - 0.5) / 0.25


class Standardise(nn.Module):
    """(x - mean) / std by channel; of a grey image, all channels are the same.

    Mean and std are buffers: they are a part of the weights, and come back with them from a checkpoint.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise inputs [B, 1 or 3, H, W] to [B, 3, H, W]."""
        return (inputs.expand(-1, len(self.mean), -1, -1) - self.mean) / self.std


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm and a shortcut (He et al. 2016, Deep residual learning)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels_in, channels, stride)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(conv1x1(channels_in, channels, stride), nn.BatchNorm2d(channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [B, channels_in, H, W] to [B, channels, H / stride, W / stride]."""
        hidden = F.relu(self.norm1(self.conv1(inputs)))
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(inputs))


class PreActBlock(nn.Module):
    """BatchNorm and ReLU before each 3x3 convolution (He et al. 2016, Identity mappings).

    Where the shape changes, the shortcut is a convolution of what the first ReLU gives.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv1 = conv3x3(channels_in, channels, stride)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        changes = stride != 1 or channels_in != channels
        self.shortcut = conv1x1(channels_in, channels, stride) if changes else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [B, channels_in, H, W] to [B, channels, H / stride, W / stride]."""
        active = F.relu(self.norm1(inputs))
        hidden = self.conv2(F.relu(self.norm2(self.conv1(active))))
        sum_: Tensor = hidden + (inputs if self.shortcut is None else self.shortcut(active))
        return sum_


def conv3x3(channels_in: int, channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias that keeps the size, or divides it by its stride."""
    return nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)


def conv1x1(channels_in: int, channels: int, stride: int) -> nn.Conv2d:
    """A 1x1 convolution without bias, for shortcuts that change the shape."""
    return nn.Conv2d(channels_in, channels, 1, stride, bias=False)


def normalised(channels: int) -> list[nn.Module]:
    """BatchNorm and ReLU."""
    return [nn.BatchNorm2d(channels), nn.ReLU()]


def pooled() -> list[nn.Module]:
    """The mean of every channel over the image: [B, C, H, W] -> [B, C]."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def without_dropout(network: nn.Module) -> None:
    """Switch dropout and stochastic depth off, so that a training step draws no random number."""
    for module in network.modules():
        for rate in RATES:
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
