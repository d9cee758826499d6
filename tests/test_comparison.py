"""The bootstrap of a paired difference, against its own variance in closed form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ltsd.errors import UserError
from ltsd.evaluation.comparison import paired_difference
from ltsd.evaluation.evaluate import Correctness

COUNTS = (400, 100, 200)
LABELS = np.repeat(np.arange(3), COUNTS)
Z = 1.959964


def sides(right: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[list[Correctness], list[Correctness]]:
    labels = torch.from_numpy(LABELS)
    return tuple([Correctness(torch.from_numpy(row), labels, 3) for row in rows] for rows in (right, other))  # type: ignore[return-value]


def drawn(seeds: int, *rates: float) -> NDArray[np.bool_]:
    return np.random.default_rng(len(rates) + seeds).random((seeds, len(LABELS))) < np.array(rates)[LABELS]


@pytest.mark.parametrize("classes", [None, [1, 2]])
@pytest.mark.parametrize("seeds", [1, 4])
def test_the_interval_is_that_of_the_normal_approximation(seeds: int, classes: list[int] | None) -> None:
    """Drawing images within classes and seeds anew has, of the mean over S seeds, the variance

    sum over classes of [var(seed means of an image) + (mean within-image variance over seeds) / S] / n_c / C²
    + var(seed means) / S,

    where an image is drawn for all seeds at once and all variances are over what was seen.
    """
    right, other = drawn(seeds, 0.9, 0.5, 0.3), drawn(seeds, 0.8, 0.45, 0.35) & drawn(seeds + 1, 1, 0.9, 1)[1:]
    found = paired_difference(*sides(right, other), classes=classes, seed=0)
    gains = right.astype(float) - other
    chosen = [0, 1, 2] if classes is None else classes
    by_class = [gains[:, c == LABELS] for c in chosen]
    seed_means = np.mean([of_class.mean(1) for of_class in by_class], axis=0)
    centred = [of_class - of_class.mean(1, keepdims=True) for of_class in by_class]
    of_images = sum(c.mean(0).var() / c.shape[1] for c in centred)
    within = sum((c.var(0)).mean() / seeds / c.shape[1] for c in centred)
    deviation = np.sqrt((of_images + within) / len(chosen) ** 2 + seed_means.var() / seeds)
    assert found.mean == pytest.approx(seed_means.mean())
    assert (found.low, found.high) == pytest.approx(
        (found.mean - Z * deviation, found.mean + Z * deviation), abs=0.1 * deviation
    )


def test_the_same_images_in_every_seed_are_no_more_images() -> None:
    """Five seeds that agree on every image say as much as one."""
    right, other = drawn(1, 0.9, 0.5, 0.3), drawn(2, 0.8, 0.4, 0.3)[1:]
    one = paired_difference(*sides(right, other), classes=None, seed=0)
    five = paired_difference(*sides(right.repeat(5, 0), other.repeat(5, 0)), classes=None, seed=1)
    assert five.mean == pytest.approx(one.mean)
    assert five.high - five.low == pytest.approx(one.high - one.low, rel=0.05)
    assert paired_difference(*sides(right, right), classes=None, seed=0).high == 0


def test_only_the_same_images_and_seeds_are_compared() -> None:
    ours, theirs = sides(drawn(2, 0.9, 0.5, 0.3), drawn(2, 0.8, 0.4, 0.3))
    with pytest.raises(UserError, match="of 2 seeds and of 1 cannot be compared image by image"):
        paired_difference(ours, theirs[:1], classes=None, seed=0)
    shifted = [Correctness(one.right, one.labels.roll(1), 3) for one in theirs]
    with pytest.raises(UserError, match="on the same test set"):
        paired_difference(ours, shifted, classes=None, seed=0)
    with pytest.raises(UserError, match="class 5 has no test image"):
        paired_difference(ours, theirs, classes=[0, 5], seed=0)


def test_images_that_are_drawn_together_count_as_one() -> None:
    """Ten copies of every image, in blocks of copies of one image a class, say as much as the images; drawn one by one
    they say ten times as much.
    """
    labels, blocks = np.tile([0, 1, 2], 60), np.repeat(np.arange(60), 3)
    rng = np.random.default_rng(5)
    right, other = rng.random((1, 180)) < 0.7, rng.random((1, 180)) < 0.5

    def exam(seen: NDArray[np.bool_], together: bool, copies: int) -> list[Correctness]:
        of_block = torch.from_numpy(np.tile(blocks, copies)) if together else None
        of_image = torch.from_numpy(np.tile(labels, copies))
        return [Correctness(torch.from_numpy(np.tile(one, copies)), of_image, 3, blocks=of_block) for one in seen]

    def width(together: bool, copies: int) -> float:
        found = paired_difference(exam(right, together, copies), exam(other, together, copies), classes=None, seed=0)
        assert found.mean == pytest.approx(float(right.mean() - other.mean()))
        return found.high - found.low

    assert width(True, 10) == pytest.approx(width(True, 1), rel=0.05)
    assert width(True, 1) == pytest.approx(width(False, 1), rel=0.2)
    assert width(False, 10) == pytest.approx(width(False, 1) / np.sqrt(10), rel=0.1)
    otherwise = [replace(one, blocks=torch.arange(180) // 6) for one in exam(other, True, 1)]
    with pytest.raises(UserError, match="different groups of test images"):
        paired_difference(exam(right, True, 1), otherwise, classes=None, seed=0)
