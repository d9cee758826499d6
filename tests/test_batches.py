"""The batches of an epoch: order, augmentation, and where their randomness comes from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2

from ltsd.answers import VOID
from ltsd.data.arrow import read_image_set, write_image_set
from ltsd.data.augment import PAD, augment, augmented, crop_flip
from ltsd.data.batches import Split, epoch_batches
from ltsd.data.vocabulary import Vocabulary

POLICIES = {"randaugment": v2.RandAugment(), "autoaugment": v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images_of(count: int, channels: int = 3, size: int = 8) -> Tensor:
    return torch.randint(0, 256, (count, channels, size, size), generator=seeded(0), dtype=torch.uint8)


@given(images=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 99))
def test_an_epoch_takes_every_image_at_most_once_in_batches_of_one_size(
    images: int, batch_size: int, seed: int
) -> None:
    split = Split(
        torch.arange(images, dtype=torch.uint8)[:, None, None, None], torch.arange(images), torch.arange(images), 40
    )

    def batches(seed: int) -> list[tuple[Tensor, Tensor]]:
        return list(epoch_batches(split, batch_size, "none", seeded(seed)))

    size = min(batch_size, images)
    taken = torch.cat([labels for _, labels in batches(seed)])
    assert [len(labels) for _, labels in batches(seed)] == [size] * (images // size)
    assert len(set(taken.tolist())) == len(taken)
    for inputs, labels in batches(seed):
        assert torch.equal((inputs.flatten() * 255).round().long(), labels)
    assert torch.equal(taken, torch.cat([labels for _, labels in batches(seed)]))


def test_augmentation_is_a_crop_of_the_padded_image_and_a_flip_of_every_other() -> None:
    inputs = torch.rand(200, 2, 5, 7, generator=seeded(0)) + 1
    padded = torch.nn.functional.pad(inputs, (PAD, PAD, PAD, PAD))
    seen: list[tuple[int, int, bool]] = []
    for image, result in zip(padded, crop_flip(inputs, seeded(1)), strict=True):
        crops = {
            (top, left, flipped): image[:, top : top + 5, left : left + 7].flip(2)
            if flipped
            else image[:, top : top + 5, left : left + 7]
            for top in range(2 * PAD + 1)
            for left in range(2 * PAD + 1)
            for flipped in (False, True)
        }
        seen += [place for place, crop in crops.items() if torch.equal(crop, result)][:1]
    assert len(seen) == len(inputs)
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(2 * PAD + 1))
    assert 70 < sum(flipped for _, _, flipped in seen) < 130


@given(st.sampled_from([*POLICIES]), st.sampled_from([1, 3]), st.integers(1, 40), st.integers(0, 99))
def test_a_policy_gives_every_image_the_bits_of_torchvision_alone(
    name: str, channels: int, count: int, seed: int
) -> None:
    images, generator = images_of(count, channels), seeded(seed)
    cropped = crop_flip(images, generator)
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**63 - 1, (), generator=generator)))
        expected = torch.stack([POLICIES[name](image) for image in cropped])
    assert torch.equal(augment(images, name, seeded(seed)), expected)
    assert torch.equal(images, images_of(count, channels))


@pytest.mark.parametrize("name", ["crop-flip", *POLICIES])
def test_augmentation_is_drawn_from_the_generator_alone_for_every_image(name: str) -> None:
    images = images_of(1).expand(200, -1, -1, -1)
    before = torch.get_rng_state()
    generator = seeded(1)
    first, second = augment(images, name, generator), augment(images, name, generator)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert torch.equal(augment(images, name, seeded(1)), first)
    assert not torch.equal(first, second)
    assert len(first.unique(dim=0)) > 80


@pytest.mark.parametrize("name", ["none", "crop-flip", *POLICIES])
def test_batches_are_floats_of_the_augmented_bytes(name: str) -> None:
    images, labels = images_of(40), torch.arange(40)
    inputs, taken = next(epoch_batches(Split(images, labels, torch.arange(40), 40), 16, name, seeded(3)))
    generator = seeded(3)
    order = torch.randperm(40, generator=generator)[:16]
    assert torch.equal(taken, order)
    assert inputs.dtype == torch.float32
    assert torch.equal(inputs, augment(images[order], name, generator) / 255)


@pytest.mark.parametrize("side", [1, 2])
def test_a_scaled_image_that_is_its_own_label_map_stays_that_and_nothing_is_outside(side: int) -> None:
    """A ramp of 4 a pixel: a label, of the nearest pixel, is within 2 of the image, and half for rounding."""
    height, width = 30, 48
    ramp = 4 * torch.arange((height, width)[side - 1])
    labels = ramp.view(-1, 1).expand(height, width) if side == 1 else ramp.expand(height, width)
    labels = labels.byte().expand(400, -1, -1)
    images, before = labels[:, None], labels.clone()
    moved, moved_labels = augmented(images, labels, "crop-flip-scale", seeded(1))
    assert torch.equal(labels, before)
    assert moved.shape == images.shape
    assert moved.dtype == moved_labels.dtype == torch.uint8
    outside = moved_labels == VOID
    assert not moved[:, 0][outside].any()
    assert (moved[:, 0].int() - moved_labels.int())[~outside].abs().max() <= 2.5
    assert set(moved_labels.unique().tolist()) == {*ramp.tolist(), VOID}
    again = augmented(images, labels, "crop-flip-scale", seeded(1))
    assert torch.equal(again[0], moved)
    assert torch.equal(again[1], moved_labels)


def test_scales_are_log_uniform_from_a_half_to_two_the_same_along_both_sides_and_half_are_flipped() -> None:
    count, side = 1000, 120
    across = 2 * torch.arange(side).expand(side, side)
    images = torch.stack([across, across.T]).byte().expand(count, -1, -1, -1)
    moved, labels = augmented(images, torch.zeros(count, side, side).byte(), "crop-flip-scale", seeded(2))
    inside = labels != VOID
    seen = torch.stack([inside.any(1).sum(1), inside.any(2).sum(1)], 1)
    darkest = torch.where(inside[:, None], moved, 255).flatten(2).amin(2)
    scale = 2 * (seen - 1) / (moved.flatten(2).amax(2).int() - darkest.int())
    torch.testing.assert_close(scale[:, 0], scale[:, 1], rtol=0.04, atol=0)
    expected = 2 ** torch.linspace(-1, 1, count)
    torch.testing.assert_close(scale[:, 0].sort().values, expected, rtol=0.1, atol=0)
    assert (inside.all(1).all(1) == (scale[:, 0] >= 1)).float().mean() > 0.95
    small = scale[:, 0] < 0.8
    free = inside.any(1).float().argmax(1)[small] / (side - seen[small, 0])
    assert free.min() >= 0
    assert free.max() <= 1
    assert free.mean().item() == pytest.approx(0.5, abs=0.06)
    grows = (moved[:, 0].int() * inside).diff(dim=2)[:, side // 2, side // 2 - 1]
    assert (grows < 0).sum().item() == pytest.approx(count / 2, abs=60)


def test_stored_sound_becomes_a_waveform_and_stored_word_pieces_their_vectors(tmp_path: Path) -> None:
    """They come back from the file as they were; a clip's largest values are -1 and just under 1."""
    sounds = np.array([[[-32768, 0, 32767]], [[16384, -16384, 1]]], dtype=np.int16)
    tokens = np.array([[0, 2, 1], [1, 1, 0]], dtype=np.int32)
    labels, vectors = np.array([1, 0]), torch.arange(12.0).view(3, 4)
    read = []
    for name, stored in (("sound", sounds), ("text", tokens)):
        write_image_set(tmp_path / name, stored, labels, ["no", "yes"])
        found = read_image_set(tmp_path / name)
        assert np.array_equal(found.images.numpy(), stored)
        read.append(Split(found.images, found.labels, torch.arange(2), 2))
    clips, texts = read[0], replace(read[1], vocabulary=Vocabulary("", vectors))
    waves, _ = clips.take(torch.tensor([1, 0]))
    assert waves.tolist() == [[[0.5, -0.5, 1 / 32768]], [[-1.0, 0.0, 32767 / 32768]]]
    embedded, of = texts.take(torch.tensor([0]))
    assert of.tolist() == [1]
    assert torch.equal(embedded[0], torch.stack([vectors[0], vectors[2], vectors[1]], 1))
    assert (clips.shape, texts.shape) == ((1, 3), (4, 3))
