"""Corruptions against other implementations of them, and against what noise is by definition."""

import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from ltsd.data import Splits
from ltsd.evaluation.corruptions import CORRUPTIONS, corrupted, corruption_correctness


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def corrupt(inputs: Tensor, variant: str, seed: int = 0) -> Tensor:
    return corrupted(inputs, variant, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(40, 1, 8, 8), (40, 3, 32, 32)])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_stay_images_and_severity_is_severe(name: str, shape: tuple[int, ...]) -> None:
    """Every level changes images at least as much as the one before, and the last more than the first."""
    inputs = drawn(*shape)
    kept = inputs.clone()
    changes = []
    for level in range(1, 6):
        changed = corrupt(inputs, f"{name}-{level}")
        assert (changed.shape, changed.dtype) == (inputs.shape, torch.float32)
        assert 0 <= changed.min() <= changed.max() <= 1
        assert torch.equal(changed, corrupt(inputs, f"{name}-{level}"))
        changes.append(float((changed - inputs).square().mean()))
    assert torch.equal(inputs, kept)
    assert 0 < changes[0] < changes[-1]
    assert changes == sorted(changes)


@pytest.mark.parametrize(("name", "level", "deviation"), [("gaussian_noise", 3, 0.08), ("shot_noise", 5, 0.1)])
def test_noise_has_the_spread_of_its_definition(name: str, level: int, deviation: float) -> None:
    """At grey of 0.5; a Poisson count of mean 0.5 n over n has the variance 0.5 / n, and n is 50."""
    noise = corrupt(torch.full((100, 1, 32, 32), 0.5), f"{name}-{level}") - 0.5
    assert float(noise.mean()) == pytest.approx(0, abs=0.002)
    assert float(noise.std()) == pytest.approx(deviation, rel=0.02)
    assert not torch.equal(corrupt(drawn(1, 1, 8, 8), f"{name}-1", 0), corrupt(drawn(1, 1, 8, 8), f"{name}-1", 1))


@pytest.mark.parametrize("side", [8, 32])
def test_blur_is_that_of_scipy(side: int) -> None:
    inputs = drawn(2, 3, side, side)
    expected = gaussian_filter(inputs.numpy(), sigma=(0, 0, 0.7, 0.7), mode="mirror", truncate=4)
    np.testing.assert_allclose(corrupt(inputs, "gaussian_blur-3").numpy(), expected, atol=1e-5)


def test_brightness_is_the_value_of_a_colour_and_contrast_its_distance_from_the_mean() -> None:
    inputs = drawn(1, 3, 4, 4)
    inputs[0, :, 0, 0] = 0
    brighter = corrupt(inputs, "brightness-5")[0].flatten(1).T.tolist()
    for before, after in zip(inputs[0].flatten(1).T.tolist(), brighter, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.3)), abs=1e-5)
    means = inputs.mean((2, 3), keepdim=True)
    torch.testing.assert_close(corrupt(inputs, "contrast-2") - means, 0.5 * (inputs - means))


def test_jpeg_is_that_of_pillow() -> None:
    pixels = (255 * drawn(8, 8)).round().byte()
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "JPEG", quality=58)
    expected = np.asarray(Image.open(buffer), dtype=float)
    found = corrupt(pixels[None, None].float() / 255, "jpeg-3")[0, 0]
    np.testing.assert_allclose(255 * found.numpy(), expected, atol=1.01)


def test_pixelation_leaves_blocks() -> None:
    """65% of a side of 8 are five blocks, 95% of a side of 2 one, of its mean; a single pixel stays."""
    blocks = corrupt(drawn(1, 1, 8, 8), "pixelate-5")[0, 0]
    assert len(blocks.unique(dim=0)) == len(blocks.T.unique(dim=0)) == 5
    quarters = torch.tensor([[[[0.0, 0.2], [0.4, 1.0]]]])
    torch.testing.assert_close(corrupt(quarters, "pixelate-1"), torch.full((1, 1, 2, 2), 0.4), atol=1 / 255, rtol=0)
    assert torch.equal(corrupt(torch.ones(1, 3, 1, 1), "pixelate-5"), torch.ones(1, 3, 1, 1))


def test_correctness_is_that_on_the_corrupted_images(splits: Splits, teacher: nn.Module) -> None:
    inputs, labels = splits.test.take(torch.arange(len(splits.test)))
    expected = teacher.eval()(corrupt(inputs, "gaussian_noise-5", seed=3)).argmax(1) == labels
    assert torch.equal(corruption_correctness(teacher, splits.test, "gaussian_noise-5", seed=3).right, expected)
