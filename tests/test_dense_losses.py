"""What attacks on a label a pixel maximise, against loops over the pixels and torch's own divergences."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ltsd.answers import VOID
from ltsd.attacks import dense_losses

CLASSES = 4


@pytest.fixture
def answers() -> tuple[Tensor, Tensor]:
    """Logits of two images of 3x5 pixels and their labels, some without; about half of the pixels are right."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (2, 3, 5), generator=generator)
    logits = torch.randn(2, 3, 5, CLASSES, generator=generator, dtype=torch.float64) + F.one_hot(labels, CLASSES)
    labels[0, 1, 2:] = VOID
    return logits, labels


def pixels(logits: Tensor, labels: Tensor) -> list[tuple[int, Tensor, int]]:
    """(image, logits, label) of every pixel that has a label."""
    places = (labels != VOID).nonzero().tolist()
    return [(image, logits[image, row, column], int(labels[image, row, column])) for image, row, column in places]


def test_cross_entropy_is_the_sum_over_the_pixels_that_have_a_label(answers: tuple[Tensor, Tensor]) -> None:
    expected = sum(-of.log_softmax(0)[label] for _, of, label in pixels(*answers))
    torch.testing.assert_close(dense_losses.cross_entropy(*answers, 0.3).sum(), torch.as_tensor(expected))


@pytest.mark.parametrize("progress", [0.0, 0.5, 0.9])
def test_segpgd_turns_from_the_pixels_that_stand_to_all(answers: tuple[Tensor, Tensor], progress: float) -> None:
    expected = torch.zeros((), dtype=torch.float64)
    for _, of, label in pixels(*answers):
        weight = 1 - progress / 2 if of.argmax() == label else progress / 2
        expected += weight * -of.log_softmax(0)[label]
    torch.testing.assert_close(dense_losses.segpgd(*answers, progress).sum(), expected)


def test_masked_losses_count_pixels_that_are_right_alone_or_levelled_by_class(answers: tuple[Tensor, Tensor]) -> None:
    masked, balanced = torch.zeros(2, dtype=torch.float64)
    known = pixels(*answers)
    for image, of, label in known:
        if of.argmax() == label:
            loss = -of.log_softmax(0)[label]
            masked += loss
            balanced += loss / sum((image, label) == (other, its) for other, _, its in known)
    torch.testing.assert_close(dense_losses.masked_cross_entropy(*answers, 0.0).sum(), masked)
    torch.testing.assert_close(dense_losses.balanced_masked_cross_entropy(*answers, 0.0).sum(), balanced)


def test_jensen_shannon_is_the_mean_divergence_from_the_mixture(answers: tuple[Tensor, Tensor]) -> None:
    expected = torch.zeros((), dtype=torch.float64)
    for _, of, label in pixels(*answers):
        p, truth = of.softmax(0), F.one_hot(torch.tensor(label), CLASSES).double()
        log_mixture = ((p + truth) / 2).log()
        expected += (F.kl_div(log_mixture, p, reduction="sum") + F.kl_div(log_mixture, truth, reduction="sum")) / 2
    torch.testing.assert_close(dense_losses.jensen_shannon(*answers, 0.0).sum(), expected)


@pytest.mark.parametrize(
    "loss",
    [
        dense_losses.cross_entropy,
        dense_losses.segpgd,
        dense_losses.masked_cross_entropy,
        dense_losses.balanced_masked_cross_entropy,
        dense_losses.jensen_shannon,
    ],
)
def test_a_pixel_without_label_pulls_nowhere_and_images_do_not_see_each_other(
    answers: tuple[Tensor, Tensor], loss: dense_losses.DenseLoss
) -> None:
    logits, labels = answers
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, labels, 0.4).sum(), logits)
    assert not gradient[labels == VOID].any()
    assert gradient[labels != VOID].any()
    torch.testing.assert_close(loss(*answers, 0.4)[1:], loss(logits[1:], labels[1:], 0.4))
    alone = [torch.autograd.grad(loss(logits[i : i + 1], labels[i : i + 1], 0.4).sum(), logits)[0] for i in range(2)]
    torch.testing.assert_close(gradient, alone[0] + alone[1])
