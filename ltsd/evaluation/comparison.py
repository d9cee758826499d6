"""Two models on the same test images: how far apart they are, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltsd.errors import UserError
from ltsd.evaluation.evaluate import Correctness
from ltsd.evaluation.pixels import PixelCounts

RESAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """A difference of accuracies, in [-1, 1], and the interval that holds it with 95% confidence."""

    mean: float
    low: float
    high: float


def paired_difference(
    ours: Sequence[Correctness], theirs: Sequence[Correctness], *, classes: Sequence[int] | None, seed: int
) -> Difference:
    """Mean difference of class-balanced accuracy, ours minus theirs, with its 95% percentile bootstrap interval
    (Efron & Tibshirani 1993, ch. 13).

    Test images are drawn again within each class, the same for both sides and for all training seeds, and the
    training seeds beside them, in pairs. With the three to five seeds that are usual the interval is somewhat
    short of the seeds' part: a bootstrap of n draws understates a variance by (n - 1) / n.

    Args:
        ours: a training seed each, all of the same test images under one attack.
        theirs: the same seeds in the same order.
        classes: the classes that count, such as the tail's; None for all.
        seed: of the draws.

    Raises:
        UserError: the two sides are not of the same images and seeds, or a class has no image.
    """
    labels = ours[0].labels
    if len(ours) != len(theirs) or any(not torch.equal(one.labels, labels) for one in (*ours, *theirs)):
        raise UserError(
            f"the correctness of {len(ours)} seeds and of {len(theirs)} cannot be compared image by image; "
            "examine both models on as many seeds, and on the same test set"
        )
    gains = np.stack(
        [one.right.numpy().astype(np.int8) - other.right.numpy() for one, other in zip(ours, theirs, strict=True)]
    )
    rng, seeds = np.random.default_rng(seed), len(ours)
    drawn_seeds = rng.multinomial(seeds, [1 / seeds] * seeds, size=RESAMPLES) / seeds
    counted = range(ours[0].num_classes) if classes is None else classes
    means, draws = np.zeros(seeds), np.zeros((RESAMPLES, seeds))
    for c in counted:
        of_class = gains[:, labels.numpy() == c]
        if of_class.shape[1] == 0:
            raise UserError(f"class {c} has no test image, so there is no balanced accuracy to compare; leave it out")
        means += of_class.mean(1) / len(counted)
        draws += _resampled_means(of_class, rng) / len(counted)
    low, high = np.quantile((draws * drawn_seeds).sum(1), [0.025, 0.975])
    return Difference(float(means.mean()), float(low), float(high))


def paired_overlap(
    ours: Sequence[PixelCounts], theirs: Sequence[PixelCounts], *, classes: Sequence[int] | None, seed: int
) -> Difference:
    """Mean difference of mean IoU, ours minus theirs, with its 95% percentile bootstrap interval.

    Test images are drawn again, the same for both sides and for all training seeds, and their pixels are summed anew,
    since a mean of images is no IoU; the training seeds are drawn beside them, in pairs. Images that belong together
    are drawn together (Künsch 1989): frames of one video say less than as many images.

    Args:
        ours: a training seed each, all of the same test images under one attack.
        theirs: the same seeds in the same order.
        classes: the classes that count, such as the tail's; None for all.
        seed: of the draws.

    Raises:
        UserError: the two sides are not of the same images and seeds, or have other blocks.
    """
    labelled = ours[0].labelled
    if len(ours) != len(theirs) or any(not torch.equal(one.labelled, labelled) for one in (*ours, *theirs)):
        raise UserError(
            f"the pixel counts of {len(ours)} seeds and of {len(theirs)} cannot be compared image by image; examine "
            "both models on as many seeds, and on the same test set"
        )
    blocks = _blocks([*ours, *theirs])
    if blocks is not None:
        ours, theirs = ([one.summed(blocks) for one in side] for side in (ours, theirs))
    rng, images, seeds = np.random.default_rng(seed), len(ours[0].labelled), len(ours)
    drawn = rng.multinomial(images, np.full(images, 1 / images), size=RESAMPLES)
    drawn_seeds = rng.multinomial(seeds, [1 / seeds] * seeds, size=RESAMPLES) / seeds
    counted = list(range(labelled.shape[1])) if classes is None else list(classes)
    whole, draws = np.zeros(seeds), np.zeros((RESAMPLES, seeds))
    for k, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        once = np.ones((1, images), dtype=drawn.dtype)
        whole[k] = (_mean_iou(one, once, counted) - _mean_iou(other, once, counted))[0]
        draws[:, k] = _mean_iou(one, drawn, counted) - _mean_iou(other, drawn, counted)
    low, high = np.nanquantile((draws * drawn_seeds).sum(1), [0.025, 0.975])
    return Difference(float(whole.mean()), float(low), float(high))


def _blocks(counts: Sequence[PixelCounts]) -> Tensor | None:
    """Return what is drawn together; counts that do not know it, of an earlier exam, are of the same images.

    Raises:
        UserError: the counts disagree.
    """
    known = [one.blocks for one in counts if one.blocks is not None]
    if any(not torch.equal(blocks, known[0]) for blocks in known):
        raise UserError(
            "the pixel counts were made with other groups of test images (--data.group-by), so that they cannot be "
            "drawn alike; examine the models with the same groups"
        )
    return known[0] if known else None


def _mean_iou(counts: PixelCounts, drawn: NDArray[np.int64], classes: Sequence[int]) -> NDArray[np.float64]:
    """Mean IoU [R] over classes that occur, of images, or blocks of them, that were drawn so often: int64 [R, N]."""
    hits, predicted, labelled = (
        drawn @ part[:, classes].numpy() for part in (counts.hits, counts.predicted, counts.labelled)
    )
    union = predicted + labelled - hits
    iou = np.divide(hits, union, out=np.full(union.shape, np.nan), where=union > 0)
    means: NDArray[np.float64] = np.nanmean(iou, axis=1)
    return means


def _resampled_means(gains: NDArray[np.int8], rng: np.random.Generator) -> NDArray[np.float64]:
    """Means [RESAMPLES, S] over images drawn with replacement from gains [S, N].

    Images that are alike in every seed are interchangeable, and few patterns occur: drawing how often each does
    is the same bootstrap, in far less memory.
    """
    patterns, counts = np.unique(gains, axis=1, return_counts=True)
    images = gains.shape[1]
    means: NDArray[np.float64] = rng.multinomial(images, counts / images, size=RESAMPLES) / images @ patterns.T
    return means
