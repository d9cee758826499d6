"""WRN-34-10: a wide residual network of three stages (Zagoruyko & Komodakis 2016)."""

from torch import nn

from ltsd.models.blocks import Normalise, PreActBlock, conv3x3, normalised, pooled
from ltsd.models.network import Features

STEM, STAGES, BLOCKS = 16, 3, 5


def wide_resnet34(channels: int, width: int) -> tuple[Features, int]:
    """Five pre-activation blocks a stage, `width` channels in the first: 46,160,474 parameters at 160, 10 classes."""
    blocks: list[nn.Module] = []
    channels_in = STEM
    for stage in range(STAGES):
        for index in range(BLOCKS):
            blocks.append(PreActBlock(channels_in, width * 2**stage, 2 if stage > 0 and index == 0 else 1))
            channels_in = width * 2**stage
    last = channels_in
    return Features(Normalise(), conv3x3(channels, STEM), *blocks, *normalised(last), *pooled()), last
