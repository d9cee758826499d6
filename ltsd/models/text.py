"""A convolutional network of sequences of vectors, such as the word pieces of a text (after Kim 2014)."""

import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.models.network import Features


class Lines(nn.Module):
    """Sequences [B, D, L] as images of one row, [B, D, 1, L]."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Add the row."""
        return inputs[:, :, None]


class WindowBlock(nn.Module):
    """Two convolutions of three neighbours with BatchNorm, and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _neighbours(channels)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = _neighbours(channels)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [B, channels, 1, L] to the same shape."""
        hidden = F.relu(self.norm1(self.conv1(inputs)))
        return F.relu(self.norm2(self.conv2(hidden)) + inputs)


def _neighbours(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, (1, 3), padding=(0, 1), bias=False)


def text_cnn(dimensions: int, width: int) -> tuple[Features, int]:
    """A learnt linear map of the vectors to `width` channels, two blocks of windows, and the largest value of every
    channel over the text.
    """
    mapped = nn.Conv2d(dimensions, width, 1, bias=False)
    return Features(
        Lines(), mapped, WindowBlock(width), WindowBlock(width), nn.AdaptiveMaxPool2d(1), nn.Flatten()
    ), width
