"""Augmentation of training batches: crops, flips, scales, and torchvision's learnt policies."""

import copy
import math
from collections import defaultdict
from functools import cache
from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ltsd.answers import VOID
from ltsd.data.boxes import moved_boxes
from ltsd.data.sound_augment import masked, shift_gain_noise
from ltsd.data.text_augment import with_edits, word_dropout
from ltsd.data.units import unit_of
from ltsd.data.vocabulary import Vocabulary

PAD = 4
LARGEST_SCALE = 2.0
"""The smallest is its inverse."""


def augmented(
    images: Tensor,
    labels: Tensor,
    augmentation: str,
    generator: torch.Generator,
    vocabulary: Vocabulary | None = None,
) -> tuple[Tensor, Tensor]:
    """Augment a batch and its labels.

    Args:
        images: uint8 [B, C, H, W], or clips of sound int16 [B, C, T], or texts int32
            [B, L].
        labels: see `ltsd.data.units`; those of pixels and boxes move with the image. What comes into view from outside
            it is VOID.
        augmentation: see `augment`; of images with a label a pixel `none`, `crop-flip` or `crop-flip-scale`; with a box
            `none` or `crop-flip`.
        generator: source of every draw.
        vocabulary: of texts.
    """
    if augmentation == "word-dropout":
        return word_dropout(images, generator), labels
    if augmentation == "edits":
        assert vocabulary is not None
        return word_dropout(with_edits(images, vocabulary, generator), generator), labels
    if augmentation == "shift-gain-noise":
        return shift_gain_noise(images, generator), labels
    if augmentation == "spec-augment":
        return masked(shift_gain_noise(images, generator), generator), labels
    if augmentation == "crop-flip-scale":
        return crop_flip_scale(images, labels, generator)
    if unit_of(labels) == "image":
        return augment(images, augmentation, generator), labels
    if unit_of(labels) == "box":
        if augmentation == "none":
            return images, labels
        offsets, flip = drawn_moves(len(images), generator)
        top, left = offsets - PAD
        return moved(images, offsets, flip), moved_boxes(labels, left, top, flip, images.shape[2:])
    # As one more channel, which is moved alike; inverted, since what is padded is 0.
    both = augment(torch.cat([images, VOID - labels[:, None]], 1), augmentation, generator)
    return both[:, :-1], VOID - both[:, -1]


def augment(images: Tensor, augmentation: str, generator: torch.Generator) -> Tensor:
    """Augment a batch with a separate draw for every image.

    Args:
        images: uint8 [B, C, H, W] with 1 or 3 channels, on the generator's device; not changed.
        augmentation: `none`; `crop-flip`; `randaugment` (2 operations of magnitude 9 of 30) or `autoaugment` (the
        CIFAR-10 policy), both after crop-flip and with torchvision's defaults.
        generator: source of every draw; torch's global state is neither read nor changed.

    Returns:
        uint8 [B, C, H, W].
    """
    if augmentation == "none":
        return images
    cropped = crop_flip(images, generator)
    return cropped if augmentation == "crop-flip" else follow_policy(cropped, augmentation, generator)


def drawn_moves(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw how `crop_flip` moves images: int64 [2, B, 1] rows and columns of the padded image that are cut off in front
    of the crop, and bool [B, 1], whether the crop is then flipped.
    """
    device = generator.device
    offsets = torch.randint(0, 2 * PAD + 1, (2, batch, 1), generator=generator, device=device)
    return offsets, torch.rand((batch, 1), generator=generator, device=device) < 0.5


def crop_flip(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Pad by 4 with zeros and crop back, at a separate place for each image; flip every other one.

    Args:
        inputs: [B, C, H, W].
        generator: draws places and flips.
    """
    return moved(inputs, *drawn_moves(len(inputs), generator))


def moved(inputs: Tensor, offsets: Tensor, flip: Tensor) -> Tensor:
    """Move images [B, C, H, W] as `drawn_moves` says."""
    batch, _, height, width = inputs.shape
    device = inputs.device
    rows = offsets[0] + torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    columns = offsets[1] + torch.where(flip, columns.flip(0), columns)
    padded = F.pad(inputs, (PAD, PAD, PAD, PAD)).permute(0, 2, 3, 1)
    which = torch.arange(batch, device=device)[:, None, None]
    return padded[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def crop_flip_scale(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Scale each image and its label map, crop or pad them to their size at a place of its own; flip every other one.

    The scale is log-uniform from 1 / LARGEST_SCALE to LARGEST_SCALE, the same along both sides. Images are
    interpolated bilinearly and labels take the nearest pixel's; what comes into view from outside is 0 and VOID.

    Args:
        images: uint8 [B, C, H, W].
        labels: uint8 [B, H, W].
        generator: source of every draw.
    """
    draws = torch.rand((4, len(images)), generator=generator, device=images.device)
    scale = torch.exp((2 * draws[0] - 1) * math.log(LARGEST_SCALE))
    flip = torch.where(draws[3] < 0.5, -1.0, 1.0)
    # Along each side an image goes from -1 to 1, and a view of length 2 / scale is seen; its middle is up to
    # |1 - 1 / scale| from the image's, so that the smaller of the two lies inside of the larger one.
    middle = (2 * draws[1:3] - 1) * (1 - 1 / scale)

    def along(side: int, factor: Tensor, middle: Tensor) -> Tensor:
        places = (2 * torch.arange(side, device=images.device) + 1) / side - 1
        return places * factor[:, None] + middle[:, None]

    height, width = images.shape[2:]
    down = along(height, 1 / scale, middle[0])[:, :, None].expand(-1, -1, width)
    across = along(width, flip / scale, middle[1])[:, None, :].expand(-1, height, -1)
    grid = torch.stack([across, down], -1)
    outside = (grid.abs() > 1).any(-1)

    def seen(pixels: Tensor, mode: str) -> Tensor:
        sampled = F.grid_sample(pixels.float(), grid, mode=mode, padding_mode="border", align_corners=False)
        return sampled.round().byte()

    moved = seen(images, "bilinear").masked_fill(outside[:, None], 0)
    return moved, seen(labels[:, None], "nearest")[:, 0].masked_fill(outside, VOID)


def follow_policy(images: Tensor, name: str, generator: torch.Generator) -> Tensor:
    """Return the bits that torchvision's `v2.RandAugment` or `v2.AutoAugment` gives for one image after the other.

    Torchvision draws once a call, for everything in it. So the draws are made image by image, and each operation is
    applied to all images at once that drew it: about 23 calls a step instead of one an image.

    Args:
        images: uint8 [B, C, H, W] with 1 or 3 channels; not changed.
        name: `randaugment` or `autoaugment`.
        generator: gives one seed, for all draws of the batch.
    """
    policy = _policy(name)
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
    images = images.clone()
    for step in zip_longest(*_draws(policy, images, seed)):
        alike = defaultdict(list)
        for row, operation in enumerate(step):
            if operation is not None:
                alike[operation].append(row)
        for operation, members in alike.items():
            rows = torch.tensor(members, device=images.device)
            images[rows] = policy._apply_image_or_video_transform(
                images[rows], *operation, interpolation=policy.interpolation, fill=policy._fill
            )
    return images


@cache
def _policy(name: str) -> Any:
    from torchvision.transforms import v2

    return v2.RandAugment() if name == "randaugment" else v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)


def _draws(policy: Any, images: Tensor, seed: int) -> list[list[tuple[str, float]]]:
    """Return for every image the operations that the policy draws, as (name, magnitude)."""
    drawn: list[list[tuple[str, float]]] = []

    def note(image: Tensor, operation: str, magnitude: float, **_: Any) -> Tensor:
        drawn[-1].append((operation, magnitude))
        return image

    noting = copy.copy(policy)
    noting._apply_image_or_video_transform = note
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the CPU's global state
        torch.default_generator.manual_seed(seed)
        for image in images:
            drawn.append([])
            noting(image)
    return drawn
