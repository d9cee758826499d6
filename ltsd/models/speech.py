"""Networks of sound: a log-mel spectrogram, computed in the network so that the waveform is attacked, and a residual
network on it.
"""

import math

import torch
from torch import Tensor

from ltsd.models.network import Features, Opaque
from ltsd.models.small import residual_stages

WINDOW, HOP, MELS = 256, 160, 32
"""Samples of a frame and from one to the next, and bands: at 8,000 samples a second 32 ms, 20 ms, 50 frames."""
LOWEST = 0.005
"""The lowest edge of the bands, as a share of the rate: 40 of 8,000 Hz."""
FLOOR = 1e-6
"""Added to the power of a band, a full-scale tone having about 1/4: the gradient of the logarithm of silence would
explode.
"""
CENTRE, SPREAD = -8.0, 3.0
"""About the mean and standard deviation of log powers of speech."""


class LogMel(Opaque):
    """The logarithm of the power in bands that are evenly spaced on the mel scale, in frames with a Hann window.

    It computes in float32: a perturbation is smaller than what bfloat16 rounds off.
    """

    basis: Tensor
    bands: Tensor

    def __init__(self) -> None:
        super().__init__()
        time = torch.arange(WINDOW, dtype=torch.float64)
        angles = 2 * math.pi * torch.arange(WINDOW // 2 + 1, dtype=torch.float64)[:, None] * time / WINDOW
        window = torch.hann_window(WINDOW, dtype=torch.float64)
        waves = torch.cat([angles.cos(), angles.sin()]) * window / window.sum()
        self.register_buffer("basis", waves.T.float(), persistent=False)
        self.register_buffer("bands", _bands(WINDOW // 2 + 1, MELS).float(), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Sound [B, 1, T] in [-1, 1] -> [B, 1, MELS, frames]."""
        with torch.autocast(inputs.device.type, enabled=False):
            waves = inputs[:, 0].unfold(-1, WINDOW, HOP) @ self.basis
            real, imaginary = waves.chunk(2, -1)
            power = (real.square() + imaginary.square()) @ self.bands
            return (((power + FLOOR).log() - CENTRE) / SPREAD).transpose(1, 2)[:, None]


def _bands(frequencies: int, bands: int) -> Tensor:
    """Return triangular filters float64 [frequencies, bands], evenly spaced on the mel scale from LOWEST to half of the
    rate, as that is laid out at 8,000 samples a second (O'Shaughnessy 1987).
    """
    hertz = torch.linspace(0, 4000, frequencies, dtype=torch.float64)
    edges = torch.linspace(_mel(8000 * LOWEST), _mel(4000.0), bands + 2, dtype=torch.float64)
    mels = 2595 * torch.log10(1 + hertz / 700)
    width = edges[1] - edges[0]
    return (1 - (mels[:, None] - edges[1:-1]).abs() / width).clamp_min(0)


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def mel_resnet(channels: int, width: int) -> tuple[Features, int]:
    """A log-mel spectrogram, and the layers of `small_resnet` on it."""
    return Features(LogMel(), *residual_stages(channels, width)), 4 * width
