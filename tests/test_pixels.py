"""IoU and recall from counts of pixels, against scikit-learn; what the worst case of several attacks is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score, recall_score
from torch import Tensor

from ltsd.answers import VOID
from ltsd.data.longtail import class_groups
from ltsd.evaluation.pixels import Overlap, PixelCounts, worst_case

CLASSES = 5


def random_answers(seed: int, images: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, 4, 6, CLASSES, generator=generator)
    labels = torch.randint(0, CLASSES, (images, 4, 6), generator=generator, dtype=torch.uint8)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = VOID
    return logits, labels


@given(seed=st.integers(0, 999))
def test_overlaps_are_those_of_scikit_learn_over_the_pixels_that_have_a_label(seed: int) -> None:
    logits, labels = random_answers(seed)
    counts = PixelCounts.of(logits, labels)
    known = labels != VOID
    truth, said = labels[known].numpy(), logits.argmax(-1)[known].numpy()
    options = {"labels": range(CLASSES), "average": None}
    assert counts.iou() == pytest.approx(jaccard_score(truth, said, **options))
    assert counts.recall() == pytest.approx(recall_score(truth, said, **options))
    assert counts.accuracy() == pytest.approx((truth == said).mean())
    overlap = Overlap.of(counts, class_groups([5, 4, 3, 2, 1]))
    assert overlap.balanced == pytest.approx(np.mean(counts.iou()))
    assert overlap.group("tail") == pytest.approx(counts.iou()[4])


@given(seed=st.integers(0, 999), images=st.integers(1, 6))
def test_the_worst_case_is_below_every_attack_and_no_other_choice_for_one_image_lowers_it(
    seed: int, images: int
) -> None:
    labels = random_answers(seed, images)[1]
    attacks = [PixelCounts.of(random_answers(seed + k, images)[0], labels) for k in range(3)]
    worst = worst_case(attacks)
    assert torch.equal(worst.labelled, attacks[0].labelled)
    lowest = np.nanmean(worst.iou())
    for attack in attacks:
        assert lowest <= np.nanmean(attack.iou())
        for image in range(images):
            hits, predicted = worst.hits.clone(), worst.predicted.clone()
            hits[image], predicted[image] = attack.hits[image], attack.predicted[image]
            assert lowest <= np.nanmean(replace(worst, hits=hits, predicted=predicted).iou()) + 1e-9
    by_image = torch.stack([attack.image_miou() for attack in attacks]).argmin(0)
    of_each = [torch.stack([getattr(one, part) for one in attacks]) for part in ("hits", "predicted")]
    hits, predicted = (part[by_image, torch.arange(images)] for part in of_each)
    assert lowest <= np.nanmean(replace(worst, hits=hits, predicted=predicted).iou()) + 1e-9


def test_the_worst_case_of_one_image_is_the_attack_that_leaves_it_least() -> None:
    labels = random_answers(0, 1)[1]
    attacks = [PixelCounts.of(random_answers(k, 1)[0], labels) for k in range(4)]
    lowest = min(attacks, key=lambda attack: float(attack.image_miou()))
    assert torch.equal(worst_case(attacks).hits, lowest.hits)


def test_the_mean_iou_of_an_image_is_over_the_classes_that_occur_in_it() -> None:
    labels = torch.tensor([[[0, 0, 1, VOID]]], dtype=torch.uint8)
    said = torch.tensor([[[0, 3, 1, 2]]])
    counts = PixelCounts.of(torch.nn.functional.one_hot(said, CLASSES).float(), labels)
    assert counts.iou() == pytest.approx([1 / 2, 1, np.nan, 0, np.nan], nan_ok=True)
    assert counts.image_miou().tolist() == pytest.approx([(1 / 2 + 1 + 0) / 3])


def test_an_answer_that_is_not_finite_predicts_nothing() -> None:
    logits, labels = random_answers(0)
    known = labels != VOID
    whole = PixelCounts.of(logits, labels)
    logits[1] = float("nan")
    broken = PixelCounts.of(logits, labels)
    assert broken.finite.tolist() == [True, False, True]
    assert not broken.hits[1].any()
    assert not broken.predicted[1].any()
    assert broken.labelled.sum() == known.sum()
    assert torch.equal(broken.hits[::2], whole.hits[::2])


def test_counts_of_batches_are_joined_in_order() -> None:
    logits, labels = random_answers(1, images=5)
    parts = [PixelCounts.of(logits[rows], labels[rows]) for rows in (slice(0, 2), slice(2, 5))]
    joined, whole = PixelCounts.joined(parts), PixelCounts.of(logits, labels)
    assert torch.equal(joined.hits, whole.hits)
    assert torch.equal(joined.image_miou(), whole.image_miou())
