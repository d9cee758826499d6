"""A convolution of tiny images as a matrix product, which is faster there."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL_MATRIX = 2**15


class ConvAsMatmul(nn.Module):
    """A convolution of images of one size as one matrix product, on a processor.

    Rows of the matrix are copied from the weights: a pixel under a tap of the kernel has the tap's weights, every other
    pixel a row of zeros.
    """

    def __init__(self, conv: nn.Conv2d, size: torch.Size, dtype: torch.dtype) -> None:
        super().__init__()
        taps = conv.weight[0, 0].numel()
        tap = taps_between(conv, size)
        channel = torch.arange(conv.out_channels)[:, None]
        zeros = conv.out_channels * taps
        self.rows = torch.where(tap < 0, zeros, channel * taps + tap).flatten()
        self.size = output_size(conv, size)
        self.table = torch.zeros(zeros + 1, conv.in_channels, dtype=dtype)
        self.matrix = torch.empty(len(self.rows), conv.in_channels, dtype=dtype)
        self.weight = self.matrix.view(len(tap) * conv.out_channels, -1)
        self.bias = torch.zeros(self.size.numel(), conv.out_channels, dtype=dtype)

    def refresh(self, weight: Tensor, bias: Tensor | None) -> None:
        """Copy the convolution's weight [out, in, height, width] and bias [out] into the existing memory."""
        self.table[:-1].copy_(weight.permute(0, 2, 3, 1).reshape(-1, weight.shape[1]))
        torch.index_select(self.table, 0, self.rows, out=self.matrix)
        if bias is not None:
            self.bias.copy_(bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images [B, in, H, W] of its size to [B, out, H', W'], channels-last."""
        pixels = inputs.permute(0, 2, 3, 1).flatten(1)
        outputs = F.linear(pixels, self.weight, self.bias.flatten())
        return outputs.view(len(inputs), *self.size, self.bias.shape[1]).permute(0, 3, 1, 2)


def is_cheaper_as_matmul(conv: nn.Conv2d, inputs: Tensor) -> bool:
    """Return whether the product is faster: on a processor, if it multiplies no more often than the convolution,
    padding included, which holds if the kernel has as many taps as the image has pixels; or if the matrix is so
    small that calls cost more than numbers, as in a grey image's first layer.
    """
    if inputs.device.type != "cpu" or conv.groups != 1 or isinstance(conv.padding, str):
        return False
    size = inputs.shape[2:]
    entries = inputs[0].numel() * conv.out_channels * output_size(conv, size).numel()
    return size.numel() <= conv.weight[0, 0].numel() or entries <= SMALL_MATRIX


def output_size(conv: nn.Conv2d, size: torch.Size) -> torch.Size:
    """Return [H', W'] of the convolution for images of [H, W]."""
    image = torch.empty(1, conv.in_channels, *size, device="meta")
    kernel = torch.empty(conv.weight.shape, device="meta")
    return F.conv2d(image, kernel, None, conv.stride, conv.padding, conv.dilation).shape[2:]


def taps_between(conv: nn.Conv2d, size: torch.Size) -> Tensor:
    """Return the tap through which an output sees a pixel, -1 for none: int64 [H' * W', 1, H * W]."""
    assert not isinstance(conv.padding, str)
    numbers = torch.arange(1.0, size.numel() + 1).view(1, 1, *size)
    seen = F.unfold(numbers, conv.kernel_size, conv.dilation, conv.padding, conv.stride)[0].t().long()
    tap = torch.full((len(seen), size.numel() + 1), -1)
    tap.scatter_(1, seen, torch.arange(seen.shape[1]).expand_as(seen))
    return tap[:, None, 1:]
