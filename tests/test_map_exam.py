"""The exam of label maps: every attack against a run of it, the worst case, and an exam that goes on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from faulty import Faulty
from numpy.typing import NDArray
from torch import Tensor, nn

from ltsd.attacks import dense_losses
from ltsd.config import AttackConfig, ModelConfig
from ltsd.data.batches import Split
from ltsd.data.longtail import class_groups
from ltsd.data.scenes import digits_scenes
from ltsd.errors import UserError
from ltsd.evaluation.comparison import paired_overlap
from ltsd.evaluation.exams import EXAMS
from ltsd.evaluation.map_exam import LOSSES, TITLES, MapExamResult, examine_maps
from ltsd.evaluation.pixel_attacks import attacked_counts, clean_counts
from ltsd.evaluation.pixels import Overlap, PixelCounts
from ltsd.evaluation.pixels_on_disk import read_counts
from ltsd.evaluation.sea import sea_counts
from ltsd.evaluation.table import class_table
from ltsd.models import build_model
from ltsd.models.frozen import frozen
from ltsd.pictures import COLOURS
from ltsd.tasks import TASKS

ATTACK = AttackConfig(eps=0.05)
COUNTS = list(range(11, 0, -1))
GROUPS = class_groups(COUNTS)


@pytest.fixture(scope="module")
def test() -> Split:
    """A few scenes."""
    images, labels = (torch.from_numpy(part[:12]) for part in digits_scenes()["test"][:2])
    return Split(images, labels, torch.arange(12), 11)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A network that has learnt nothing."""
    torch.manual_seed(0)
    return build_model(ModelConfig(name="small-unet", width=8), 1, 11).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def result(model: nn.Module, test: Split) -> MapExamResult:
    *_, (done, result) = examine_maps(model, test, GROUPS, ATTACK, "none")
    assert done == "corruptions"
    return result


def test_every_task_has_an_exam_and_every_attack_a_colour() -> None:
    assert EXAMS.keys() == TASKS.keys()
    assert TITLES.keys() <= COLOURS.keys()


def test_every_attack_is_told_by_class_and_group(model: nn.Module, test: Split, result: MapExamResult) -> None:
    size = ATTACK.resolved_step_size
    expected = {"clean": clean_counts(model, test)}
    expected["sea20"] = sea_counts(frozen(model), test, eps=0.05, steps=20, seed=0, chunk=32)
    for name, loss in LOSSES.items():
        expected[name] = attacked_counts(model, test, loss, eps=0.05, step_size=size, steps=20, seed=0)
    cross_entropy = dense_losses.cross_entropy
    expected["fgsm"] = attacked_counts(model, test, cross_entropy, eps=0.05, step_size=0.05, steps=1, seed=None)
    values, six = result.values(), (*LOSSES, "sea20")
    for name, counts in expected.items():
        overlap = Overlap.of(counts, GROUPS)
        assert result.per_class()[name] == pytest.approx(counts.iou(), abs=1e-3, nan_ok=True)
        assert values[f"test/{name}_miou"] == pytest.approx(overlap.balanced, abs=1e-3)
    worst = torch.stack([counts.image_miou() for name, counts in expected.items() if name in six]).amin(0)
    lowest = torch.stack([result.counts[name].image_miou() for name in six]).amin(0)
    torch.testing.assert_close(lowest, worst, atol=1e-3, rtol=0)
    assert values["test/robust_miou"] == result.accuracies["worst"].balanced
    assert values["test/tail_robust_miou"] == result.accuracies["worst"].group("tail")
    table = class_table(result, COUNTS, [str(c) for c in range(11)], "IoU")
    assert table.endswith("12 test images; IoU in percent, means over classes")


def test_an_exam_goes_on_from_its_file_to_the_same_numbers(
    model: nn.Module, test: Split, result: MapExamResult, tmp_path: Path
) -> None:
    kept = tmp_path / "one.parquet"
    parts = examine_maps(model, test, GROUPS, ATTACK, "none", keep=kept)
    assert next(parts)[0] == "PGD-20"
    parts.close()
    counts, fingerprint = read_counts(kept)
    assert set(counts) == {"clean", "fgsm", "pgd20"}
    asked = list[int]()
    hook = model.register_forward_pre_hook(lambda module, inputs: asked.append(len(inputs[0])))
    *_, (_, second) = examine_maps(model, test, GROUPS, ATTACK, "none", keep=kept)
    hook.remove()
    assert second.as_json() == result.as_json()
    found, same = read_counts(kept)
    assert same == fingerprint
    for name, one in found.items():
        assert torch.equal(one.hits, second.counts[name].hits)
        assert torch.equal(one.predicted, second.counts[name].predicted)
        assert torch.equal(one.labelled, second.counts[name].labelled)
    *_, (_, third) = examine_maps(model, test, GROUPS, ATTACK, "none", keep=kept)
    assert third.as_json() == result.as_json()
    blocks = np.repeat([0, 1, 2], 4)
    *_, (_, fourth) = examine_maps(model, test, GROUPS, ATTACK, "none", keep=kept, blocks=blocks)
    assert fourth.as_json() == result.as_json()
    assert {tuple(one.blocks.tolist()) for one in read_counts(kept)[0].values()} == {tuple(blocks)}
    (tmp_path / "one.parquet").write_bytes(b"damaged")
    with pytest.raises(UserError, match="is not the file of an exam of label maps"):
        read_counts(kept)


class Threshold(nn.Module):
    """Grey pixels above a half are of class 1: an attack turns all that are nearer to it than eps, and no other."""

    def forward(self, inputs: Tensor) -> Tensor:
        above = 10 * (inputs[:, 0] - 0.5)
        return torch.stack([-above, above], dim=-1)


def test_sea_turns_every_pixel_that_its_last_radius_can_turn_and_no_other() -> None:
    images = torch.randint(0, 256, (7, 1, 9, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    grey = images[:, 0].float() / 255
    labels = (grey > 0.5).byte()
    found = sea_counts(Threshold(), Split(images, labels, torch.arange(7), 2), eps=0.099, steps=20, seed=0, chunk=3)
    far = (grey - 0.5).abs() > 0.099
    for c in range(2):
        of_class = labels == c
        assert found.hits[:, c].tolist() == (of_class & far).sum((1, 2)).tolist()
        turned = ~of_class & ~far
        assert found.predicted[:, c].tolist() == ((of_class & far) | turned).sum((1, 2)).tolist()


def test_answers_that_are_not_finite_are_told_and_count_as_wrong(model: nn.Module, test: Split) -> None:
    marked = test.take(torch.tensor([0]))[0]
    broken = Faulty(model, lambda inputs: (inputs == marked).flatten(1).all(1)[:, None, None])
    _, result = next(iter(examine_maps(broken, test, GROUPS, ATTACK, "none")))
    assert result.doubts == ("the network answers NaN or infinity on 1 of 12 test images: these pixels count as wrong",)
    assert not result.counts["clean"].hits[0].any()


def test_an_ensemble_of_attacks_on_one_label_an_image_is_refused(model: nn.Module, test: Split) -> None:
    with pytest.raises(UserError, match=r"AutoAttack needs one label per image, .* choose none"):
        next(iter(examine_maps(model, test, GROUPS, ATTACK, "standard")))


def counts_of(hits: NDArray[np.int64], blocks: NDArray[np.int64] | None) -> PixelCounts:
    """Counts of images of 100 pixels of each class, of which `hits` [N, C] are right; the others are of no class."""
    right = torch.from_numpy(hits)
    together = None if blocks is None else torch.from_numpy(blocks)
    return PixelCounts(right, right, torch.full_like(right, 100), torch.ones(len(right), dtype=torch.bool), together)


def test_frames_that_repeat_each_other_say_no_more_than_one_of_them() -> None:
    """The mean over B blocks of the means over classes has the variance of these means over B."""
    ours, theirs = np.random.default_rng(0).integers(0, 101, (2, 40, 3))
    blocks = np.repeat(np.random.default_rng(1).permutation(40), 10)
    single = paired_overlap([counts_of(ours, None)], [counts_of(theirs, None)], classes=None, seed=0)
    frames, others = (counts_of(side.repeat(10, axis=0), blocks) for side in (ours, theirs))
    found = paired_overlap([frames], [others], classes=None, seed=0)
    gains = (ours - theirs).mean(1) / 100
    expected = gains.mean() + 1.959964 * gains.std() / np.sqrt(40) * np.array([-1, 1])
    assert (found.low, found.high) == pytest.approx(expected, abs=0.06 * gains.std() / np.sqrt(40))
    assert found.mean == pytest.approx(single.mean)
    assert found.high - found.low == pytest.approx(single.high - single.low, rel=0.05)
    alone = paired_overlap([replace(frames, blocks=None)], [replace(others, blocks=None)], classes=None, seed=0)
    assert alone.high - alone.low == pytest.approx((found.high - found.low) / np.sqrt(10), rel=0.05)
    earlier = paired_overlap([frames], [replace(others, blocks=None)], classes=None, seed=0)
    assert earlier == found
    with pytest.raises(UserError, match="made with different groups of test images"):
        paired_overlap([frames], [counts_of(theirs.repeat(10, axis=0), blocks[::-1].copy())], classes=None, seed=0)


def test_a_paired_difference_resums_the_pixels_of_the_images_drawn(result: MapExamResult) -> None:
    clean, attacked = result.counts["clean"], result.counts["pgd20"]
    found = paired_overlap([clean, clean], [attacked, attacked], classes=None, seed=0)
    assert found.mean == pytest.approx(Overlap.of(clean, GROUPS).balanced - Overlap.of(attacked, GROUPS).balanced)
    assert found.low <= found.mean <= found.high
    same = paired_overlap([clean], [clean], classes=[0, 1], seed=0)
    assert (same.low, same.mean, same.high) == (0, 0, 0)
    with pytest.raises(UserError, match="cannot be compared image by image"):
        paired_overlap([clean], [attacked, attacked], classes=None, seed=0)
