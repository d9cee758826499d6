"""Further parts of the exam for sound: PGD at fixed signal-to-noise ratios, and corruptions as by microphones, rooms
and telephone lines.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ltsd.attacks.domains import SOUND
from ltsd.attacks.losses import cross_entropy
from ltsd.attacks.pgd import pgd, steady
from ltsd.data.batches import Split
from ltsd.evaluation.evaluate import CHUNK, Correctness, eval_mode
from ltsd.padding import before_padding

Corruption = Callable[[Tensor, float, torch.Generator], Tensor]

RATIOS = {"snr40": 40.0, "snr30": 30.0, "snr20": 20.0}
"""Signal-to-noise ratios in decibels by the name of the attack. 20 dB is a conversation in a quiet room."""
WET = 0.7
"""The L2 norm of an echo's impulse response, relative to that of the direct sound."""
SILENCED = math.log(1000.0)
"""The amplitude of an echo falls to a thousandth over its length: by 60 dB."""
MU = 255.0


def signal_power(inputs: Tensor) -> Tensor:
    """Return the mean square [B, 1, 1] of sound [B, C, T] before its padding."""
    sounds = before_padding(inputs).sum(-1, keepdim=True).clamp_min(1)
    return inputs.square().mean(1, keepdim=True).sum(-1, keepdim=True) / sounds


def ratio_correctness(model: nn.Module, split: Split, name: str, *, steps: int, seed: int) -> dict[str, Correctness]:
    """Return {name: correctness} under PGD on cross-entropy with a radius for each clip.

    `name` is one of RATIOS: noise with the radius as its amplitude has this signal-to-noise ratio.
    """
    generator = torch.Generator(split.rows.device).manual_seed(seed)

    def answers() -> list[tuple[Tensor, Tensor]]:
        found = []
        for inputs, labels in split.chunks(CHUNK):
            eps = (signal_power(inputs) * 10 ** (-RATIOS[name] / 10)).sqrt()
            adv_inputs = pgd(
                lambda x, y=labels: cross_entropy(model(steady(x)), y),  # type: ignore[misc]
                inputs,
                domain=SOUND,
                eps=eps,
                step_size=eps / 4,
                steps=steps,
                start=SOUND.uniform(inputs, eps=eps, generator=generator),
            )
            with torch.no_grad():
                found.append((model(adv_inputs), labels))
        return found

    with eval_mode(model):
        return {name: Correctness.of(answers(), split)}


def radius_in_decibels(split: Split, eps: float) -> str:
    """Describe how many decibels noise with amplitude eps is below the median clip of a split."""
    powers = torch.cat([signal_power(inputs).flatten() for inputs, _ in split.chunks(CHUNK)])
    return f"{10 * math.log10(float(powers.median()) / eps**2):.0f} dB below the median clip"


def white_noise(inputs: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """Add normal noise over the whole clip, at a signal-to-noise ratio in decibels."""
    noise = torch.randn(inputs.shape, generator=generator, device=inputs.device)
    return (inputs + noise * (signal_power(inputs) * 10 ** (-ratio / 10)).sqrt()).clamp(-1, 1)


def echo(inputs: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Add the echo of a room, which decays over a share of the clip: exponentially decaying noise, drawn for each
    clip.
    """
    length = max(2, int(share * inputs.shape[-1]))
    decay = torch.exp(-SILENCED * torch.arange(length, device=inputs.device) / length)
    tail = decay * torch.randn((len(inputs), 1, length), generator=generator, device=inputs.device)
    tail[..., 0] = 0
    response = WET * tail / torch.linalg.vector_norm(tail, dim=-1, keepdim=True)
    response[..., 0] = 1
    total = inputs.shape[-1] + length
    heard = torch.fft.irfft(torch.fft.rfft(inputs, total) * torch.fft.rfft(response, total), total)
    same: Tensor = heard[..., : inputs.shape[-1]].clamp(-1, 1)
    return same


def band_limit(inputs: Tensor, share: float, _: torch.Generator) -> Tensor:
    """Remove the frequencies above a share of the highest frequency."""
    spectrum = torch.fft.rfft(inputs)
    spectrum[..., int(share * spectrum.shape[-1]) :] = 0
    limited: Tensor = torch.fft.irfft(spectrum, inputs.shape[-1]).clamp(-1, 1)
    return limited


def clipping(inputs: Tensor, share: float, _: torch.Generator) -> Tensor:
    """Clip the amplitude at a share of the peak of each clip."""
    peak = share * inputs.abs().amax((1, 2), keepdim=True)
    return inputs.clamp(-peak, peak)


def mu_law(inputs: Tensor, levels: float, _: torch.Generator) -> Tensor:
    """Quantise to `levels` levels of the mu-law code of telephone lines (ITU-T G.711)."""
    coded = inputs.sign() * torch.log1p(MU * inputs.abs()) / math.log1p(MU)
    rounded = (coded * levels / 2).round() * 2 / levels
    return rounded.sign() * torch.expm1(rounded.abs() * math.log1p(MU)) / MU


CORRUPTIONS: dict[str, tuple[Corruption, tuple[float, ...]]] = {
    "white_noise": (white_noise, (30, 25, 20, 15, 10)),
    "echo": (echo, (0.05, 0.1, 0.2, 0.3, 0.4)),
    "band_limit": (band_limit, (0.8, 0.65, 0.5, 0.4, 0.3)),
    "clipping": (clipping, (0.5, 0.3, 0.2, 0.1, 0.05)),
    "mu_law": (mu_law, (64, 32, 16, 12, 8)),
}
"""By name: the function (sound [B, C, T] in [-1, 1], strength, generator) -> the same shape and range; and its
strengths, by severity from 1 to 5."""
VARIANTS = {f"{name}-{level}": (name, level) for name in CORRUPTIONS for level in range(1, 6)}
"""(corruption, severity) by the name of both, such as `echo-3`."""


def corruption_correctness(model: nn.Module, split: Split, variant: str, *, seed: int) -> Correctness:
    """Return the correctness on corrupted clips; noise and echoes are drawn from `seed`."""
    name, level = VARIANTS[variant]
    corruption, strengths = CORRUPTIONS[name]
    generator = torch.Generator(split.rows.device).manual_seed(seed)
    with eval_mode(model), torch.no_grad():
        answers = (
            (model(corruption(inputs, strengths[level - 1], generator)), labels)
            for inputs, labels in split.chunks(CHUNK)
        )
        return Correctness.of(answers, split)
