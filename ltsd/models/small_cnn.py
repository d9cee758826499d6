"""A small residual network for 8x8 images: a strided stem and one residual block, trains in seconds on one core."""

import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.models.blocks import Normalise, ResidualBlock


class SmallCNN(nn.Module):
    """A stem of `width` channels at half the resolution, a residual block of twice as many at a quarter."""

    def __init__(self, channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            Normalise(),
            nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            ResidualBlock(width, 2 * width, stride=2),
        )
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(F.adaptive_avg_pool2d(self.features(inputs), 1).flatten(1))
        return logits
