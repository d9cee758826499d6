"""Augmentation of clips of sound: shifted, louder or softer, with noise."""

import torch
from torch import Tensor

from ltsd.padding import before_padding

SHIFT = 0.1
"""Of the length of a clip, to either side."""
GAIN_DB = 6.0
NOISE_DB = (10.0, 40.0)
"""Signal over noise."""


def shift_gain_noise(clips: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each clip in time, scale it, and add white noise to what is not its padding, each by a draw of its own.

    Args:
        clips: int16 [B, C, T]; not changed.
        generator: source of every draw; all are uniform, of gain and noise in decibels.

    Returns:
        int16 [B, C, T]; what a shift moves out is lost, what it moves in is 0.
    """
    batch, _, length = clips.shape
    device = clips.device
    draws = torch.rand((3, batch, 1, 1), generator=generator, device=device)
    noise = torch.randn(clips.shape, generator=generator, device=device)
    places = torch.arange(length, device=device) - ((2 * draws[0] - 1) * SHIFT * length).round().long()
    inside = (places >= 0) & (places < length)
    moved = clips.float().gather(2, places.clamp(0, length - 1).expand(clips.shape)) * inside
    sounds = before_padding(moved)
    power = (moved.square().sum((1, 2), keepdim=True) / sounds.sum((1, 2), keepdim=True).clamp_min(1)).sqrt()
    decibels = NOISE_DB[0] + draws[1] * (NOISE_DB[1] - NOISE_DB[0])
    noisy = moved + sounds * noise * power * 10 ** (-decibels / 20)
    louder = noisy * 10 ** ((2 * draws[2] - 1) * GAIN_DB / 20)
    return louder.round().clamp(-32768, 32767).to(torch.int16)
