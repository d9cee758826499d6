"""Differences between two models on the same test images, with confidence intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltsd.errors import UserError
from ltsd.evaluation.blocks import blocks_of, draw_images
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
    """Return the mean difference of class-balanced accuracy, ours minus theirs, with its 95% percentile bootstrap
    interval (Efron & Tibshirani 1993, ch. 13).

    The bootstrap draws test images within each class, with the same draw for both sides and for all training seeds; it
    also draws the training seeds, in pairs. Images of one block are drawn together (Künsch 1989), whatever their
    classes. With the usual three to five seeds the interval is slightly too narrow: a bootstrap of n seeds
    underestimates their variance by the factor (n - 1) / n.

    Args:
        ours: one per training seed, all of the same test images under one attack.
        theirs: the same seeds in the same order.
        classes: the classes that count, such as the tail's; None for all.
        seed: of the draws.

    Raises:
        UserError: the two sides are not of the same images and seeds, have other blocks, or a class has no image.
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
    counted = list(range(ours[0].num_classes)) if classes is None else list(classes)
    of_class = labels.numpy()[:, None] == np.array(counted)
    if (missing := np.flatnonzero(~of_class.any(0))).size:
        raise UserError(
            f"class {counted[missing[0]]} has no test image, so there is no balanced accuracy to compare; leave it out"
        )
    rng, seeds, blocks = np.random.default_rng(seed), len(ours), blocks_of([*ours, *theirs])
    drawn_seeds = rng.multinomial(seeds, [1 / seeds] * seeds, size=RESAMPLES) / seeds
    means = np.mean([gains[:, own].mean(1) for own in of_class.T], axis=0)
    if blocks is None:
        draws = np.zeros((RESAMPLES, seeds))
        for own in of_class.T:  # one by one: those of a thousand classes are hundreds of megabytes
            draws += _resampled_means(gains[:, own], rng) / len(counted)
    else:
        draws = _means_of_drawn_blocks(gains, of_class, blocks, rng)
    low, high = np.nanquantile((draws * drawn_seeds).sum(1), [0.025, 0.975])
    return Difference(float(means.mean()), float(low), float(high))


def paired_overlap(
    ours: Sequence[PixelCounts], theirs: Sequence[PixelCounts], *, classes: Sequence[int] | None, seed: int
) -> Difference:
    """Return the mean difference of mean IoU, ours minus theirs, with its 95% percentile bootstrap interval.

    The bootstrap draws test images, with the same draw for both sides and for all training seeds, and sums their pixels
    again, because an IoU is not a mean over images. It also draws the training seeds, in pairs. Images of one block are
    drawn together (Künsch 1989).

    Args:
        ours: one per training seed, all of the same test images under one attack.
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
    blocks = blocks_of([*ours, *theirs])
    if blocks is not None:
        ours, theirs = ([one.summed(blocks) for one in side] for side in (ours, theirs))
    rng, images, seeds = np.random.default_rng(seed), len(ours[0].labelled), len(ours)
    drawn = draw_images(images, None, rng, resamples=RESAMPLES)
    drawn_seeds = rng.multinomial(seeds, [1 / seeds] * seeds, size=RESAMPLES) / seeds
    counted = list(range(labelled.shape[1])) if classes is None else list(classes)
    whole, draws = np.zeros(seeds), np.zeros((RESAMPLES, seeds))
    for k, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        once = np.ones((1, images), dtype=drawn.dtype)
        whole[k] = (_mean_iou(one, once, counted) - _mean_iou(other, once, counted))[0]
        draws[:, k] = _mean_iou(one, drawn, counted) - _mean_iou(other, drawn, counted)
    low, high = np.nanquantile((draws * drawn_seeds).sum(1), [0.025, 0.975])
    return Difference(float(whole.mean()), float(low), float(high))


def _mean_iou(counts: PixelCounts, drawn: NDArray[np.int64], classes: Sequence[int]) -> NDArray[np.float64]:
    """Return the mean IoU [R] over the classes that occur; `drawn`, int64 [R, N], is how often each image, or block of
    images, was drawn.
    """
    hits, predicted, labelled = (
        drawn @ part[:, classes].numpy() for part in (counts.hits, counts.predicted, counts.labelled)
    )
    union = predicted + labelled - hits
    iou = np.divide(hits, union, out=np.full(union.shape, np.nan), where=union > 0)
    means: NDArray[np.float64] = np.nanmean(iou, axis=1)
    return means


def _resampled_means(gains: NDArray[np.int8], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the means [RESAMPLES, S] over images drawn with replacement from gains [S, N].

    Images with the same gains in all seeds are interchangeable, and few patterns of gains occur. So the function draws
    how often each pattern occurs, which is the same bootstrap in far less memory.
    """
    patterns, counts = np.unique(gains, axis=1, return_counts=True)
    images = gains.shape[1]
    means: NDArray[np.float64] = rng.multinomial(images, counts / images, size=RESAMPLES) / images @ patterns.T
    return means


def _means_of_drawn_blocks(
    gains: NDArray[np.int8], of_class: NDArray[np.bool_], blocks: Tensor, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the mean gains over the classes that were drawn, [RESAMPLES, S], if blocks are drawn with replacement.

    Args:
        gains: [S, N].
        of_class: bool [N, C], whether an image is of a class.
        blocks: int64 [N].
        rng: draws the blocks.
    """
    of_block = (blocks.unique()[:, None] == blocks).numpy().astype(np.int64)  # type: ignore[no-untyped-call]
    drawn = draw_images(len(of_block), None, rng, resamples=RESAMPLES)
    sizes = drawn @ (of_block @ of_class)
    means = np.empty((RESAMPLES, len(gains)))
    for k, gain in enumerate(gains):
        won = drawn @ (of_block @ (gain[:, None] * of_class))
        means[:, k] = np.nanmean(np.divide(won, sizes, out=np.full(won.shape, np.nan), where=sizes > 0), axis=1)
    return means
