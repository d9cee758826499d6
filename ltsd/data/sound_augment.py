"""Augmentation of clips of sound: shifted, louder or softer, with noise, a span or a band taken away."""

import torch
from torch import Tensor

from ltsd.padding import before_padding

SHIFT = 0.1
"""Of the length of a clip, to either side."""
GAIN_DB = 6.0
NOISE_DB = (10.0, 40.0)
"""Signal over noise."""
LONGEST_SPAN, WIDEST_BAND = 0.15, 0.15
"""What is masked, as shares of the length of a clip and of half its sampling rate."""


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


def masked(clips: Tensor, generator: torch.Generator) -> Tensor:
    """Take a span of time and a band of frequencies away from each clip, as SpecAugment does from spectrograms (Park et
    al. 2019).

    Args:
        clips: int16 [B, C, T]; not changed.
        generator: draws widths, up to LONGEST_SPAN and WIDEST_BAND, and places, all uniform.

    Returns:
        int16 [B, C, T]; padding is as it was.
    """
    length = clips.shape[-1]
    draws = torch.rand((4, len(clips), 1, 1), generator=generator, device=clips.device)
    spectrum = torch.fft.rfft(clips.float())
    bands = torch.linspace(0, 1, spectrum.shape[-1], device=clips.device)
    filtered: Tensor = torch.fft.irfft(spectrum * ~_between(bands, draws[0] * WIDEST_BAND, draws[1]), n=length)
    times = torch.linspace(0, 1, length, device=clips.device)
    kept = before_padding(clips) & ~_between(times, draws[2] * LONGEST_SPAN, draws[3])
    return (filtered * kept).round().clamp(-32768, 32767).to(torch.int16)


def _between(places: Tensor, width: Tensor, where: Tensor) -> Tensor:
    """Return bool [B, 1, N]: which places [N] in [0, 1] lie in a span of a width that starts at `where` of the rest."""
    start = where * (1 - width)
    return (places >= start) & (places < start + width)
