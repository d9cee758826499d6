"""Networks of sequences of vectors, such as the word pieces of a text, in which vectors of zeros are padding: a
convolutional one (after Kim 2014) and a transformer encoder (Vaswani et al. 2017).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.models.network import Features, Opaque

LAYERS, HEADS = 2, 4
"""Of the transformer, and of each of its layers."""


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


class Encoder(Opaque):
    """A transformer encoder without dropout, [B, dimensions, L] -> [B, width]: the mean over what is not padding."""

    def __init__(self, dimensions: int, width: int) -> None:
        super().__init__()
        self.mapped = nn.Linear(dimensions, width)
        layer = nn.TransformerEncoderLayer(
            width, HEADS, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        # Nested tensors have no gradient of their inputs.
        self.layers = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Read the vectors at every position in the light of all others."""
        padding = (inputs == 0).all(1)
        padding[:, 0] = False  # no text is nothing but padding
        mapped = self.mapped(inputs.transpose(1, 2))
        hidden = self.layers(mapped + _positions(mapped), src_key_padding_mask=padding)
        words = ~padding[..., None]
        mean: Tensor = (hidden * words).sum(1) / words.sum(1)
        return mean


def _positions(like: Tensor) -> Tensor:
    """Return sines and cosines of the positions in a tensor [B, L, width], as [L, width]."""
    _, length, width = like.shape
    places = torch.arange(length, device=like.device, dtype=like.dtype)
    rates = torch.exp(torch.arange(0, width, 2, device=like.device, dtype=like.dtype) * (-math.log(1e4) / width))
    angles = places[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def text_transformer(dimensions: int, width: int) -> tuple[Features, int]:
    """A learnt linear map of the vectors to `width` channels and a transformer encoder."""
    return Features(Encoder(dimensions, width)), width
