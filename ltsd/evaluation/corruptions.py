"""Noise, blur, and what cameras and codecs do to images: seven corruptions of CIFAR-10-C, at its five severities.

Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"; the
strengths are those of CIFAR-10-C. Blur is in pixels and pixelation is a share of the side, whatever the size of the
image: at 8x8 both are stronger than at 32x32. Unlike in CIFAR-10-C, images are not rounded to bytes after the first
five corruptions.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor, nn

from ltsd.data.batches import Split
from ltsd.evaluation.evaluate import CHUNK, Correctness, eval_mode

Corruption = Callable[[Tensor, float, torch.Generator], Tensor]


def gaussian_noise(inputs: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Add normal noise; `deviation` is its standard deviation, in units of the image range."""
    noise = torch.randn(inputs.shape, generator=generator, device=inputs.device, dtype=inputs.dtype)
    return (inputs + deviation * noise).clamp_(0, 1)


def shot_noise(inputs: Tensor, photons: float, generator: torch.Generator) -> Tensor:
    """Add the Poisson noise of a sensor that counts `photons` photons at a white pixel."""
    return (torch.poisson(photons * inputs, generator=generator) / photons).clamp_(0, 1)


def gaussian_blur(inputs: Tensor, sigma: float, _: torch.Generator) -> Tensor:
    """Blur by a Gaussian of `sigma` pixels, cut off at four of them, or at the size of the image."""
    from torchvision.transforms.v2 import functional

    radius = min(int(4 * sigma + 0.5), *(side - 1 for side in inputs.shape[2:]))
    blurred: Tensor = functional.gaussian_blur(inputs, [2 * radius + 1] * 2, [sigma] * 2)
    return blurred


def contrast(inputs: Tensor, factor: float, _: torch.Generator) -> Tensor:
    """Scale the distance of every pixel from the mean of its channel by `factor`."""
    means = inputs.mean((2, 3), keepdim=True)
    return (means + factor * (inputs - means)).clamp_(0, 1)


def brightness(inputs: Tensor, more: float, _: torch.Generator) -> Tensor:
    """Add `more` to the value channel of HSV, in units of the image range; torchvision's brightness is a factor."""
    value = inputs.amax(1, keepdim=True)
    raised = (value + more).clamp_(max=1)
    return torch.where(value > 0, inputs * raised / value.clamp_min(1e-6), raised).clamp_(max=1)


def jpeg(inputs: Tensor, quality: float, _: torch.Generator) -> Tensor:
    """Compress as JPEG and decode."""
    from torchvision.transforms.v2 import functional

    return torch.stack([functional.jpeg(image, int(quality)) for image in _bytes(inputs)]).to(inputs) / 255


def pixelate(inputs: Tensor, share: float, _: torch.Generator) -> Tensor:
    """Resize to a share of each side and back, with Pillow's box filter."""
    height, width = inputs.shape[2:]
    small = (max(1, int(share * width)), max(1, int(share * height)))
    images = [Image.fromarray(image) for image in _bytes(inputs).permute(0, 2, 3, 1).squeeze(3).numpy()]
    blocks = [
        np.asarray(image.resize(small, Resampling.BOX).resize((width, height), Resampling.BOX)) for image in images
    ]
    pixels = torch.from_numpy(np.stack(blocks)).view(len(inputs), height, width, -1).permute(0, 3, 1, 2)
    return pixels.to(inputs) / 255


def _bytes(inputs: Tensor) -> Tensor:
    return (255 * inputs).round().byte().cpu()


CORRUPTIONS: dict[str, tuple[Corruption, tuple[float, ...]]] = {
    "gaussian_noise": (gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (shot_noise, (500, 250, 100, 75, 50)),
    "gaussian_blur": (gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "brightness": (brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "jpeg": (jpeg, (80, 65, 58, 50, 40)),
    "pixelate": (pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
}
"""By name: the function (inputs [B, C, H, W] in [0, 1], strength, generator on their device) -> the same shape and
range; and its strengths, by severity from 1 to 5."""

VARIANTS = {f"{name}-{level}": (name, level) for name in CORRUPTIONS for level in range(1, 6)}
"""(corruption, severity) by the name of both, such as `jpeg-3`."""


def corrupted(inputs: Tensor, variant: str, generator: torch.Generator) -> Tensor:
    """Corrupt inputs [B, C, H, W] float32 in [0, 1], of 1 or 3 channels; return the same shape and range."""
    name, level = VARIANTS[variant]
    corruption, strengths = CORRUPTIONS[name]
    return corruption(inputs, strengths[level - 1], generator)


def corruption_correctness(model: nn.Module, split: Split, variant: str, *, seed: int) -> Correctness:
    """Return the correctness on corrupted images; the noise is drawn from `seed`."""
    generator = torch.Generator(split.rows.device).manual_seed(seed)
    with eval_mode(model), torch.no_grad():
        answers = ((model(corrupted(inputs, variant, generator)), labels) for inputs, labels in split.chunks(CHUNK))
        return Correctness.of(answers, split)
