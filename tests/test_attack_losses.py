"""What each attack maximises, on linear classifiers, where its steps are known in closed form."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ltsd.attacks.domains import PIXELS
from ltsd.attacks.losses import Loss, cross_entropy, cw_margin, scaled_cross_entropy
from ltsd.attacks.pgd import pgd


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 6))
def test_one_step_follows_the_gradient_in_closed_form(seed: int, num_classes: int) -> None:
    """On logits W x the margin rises along w_rival - w_true, also for an example that is wrong already, and the
    cross-entropy of s W x along W' (softmax(s W x) - e_true); an example's step has nothing to do with the others.
    """
    generator = torch.Generator().manual_seed(seed)
    weights, inputs = torch.randn(num_classes, 5, generator=generator), torch.rand(7, 5, generator=generator)
    labels = torch.randint(num_classes, (7,), generator=generator)

    def step(loss: Loss) -> Tensor:
        moved = pgd(
            lambda x: loss(x @ weights.T, labels), inputs, domain=PIXELS, eps=0.1, step_size=0.1, steps=1, start=inputs
        )
        return moved - inputs

    def along(gradients: list[Tensor]) -> Tensor:
        return (inputs + 0.1 * torch.stack(gradients).sign()).clamp(0, 1) - inputs

    logits = inputs @ weights.T
    margins = []
    for row, y in zip(logits, labels.tolist(), strict=True):
        rival = max((c for c in range(num_classes) if c != y), key=row.__getitem__)
        margins.append(weights[rival] - weights[y])
    torch.testing.assert_close(step(cw_margin), along(margins))
    for loss, scale in ((cross_entropy, 1), (scaled_cross_entropy, 10)):
        errors = (scale * logits).softmax(1) - torch.eye(num_classes)[labels]
        torch.testing.assert_close(step(loss), along(list(errors @ weights)))


def fooled(loss: Loss, scale: float) -> bool:
    """Whether PGD-20 gets the image over the boundary that lies in its reach: that of class 1, at x = 0.55.

    Class 2 is farther away, on the other side, and its logit is steeper.
    """

    def logits(x: Tensor) -> Tensor:
        offset = x[:, 0] - 0.5
        return scale * torch.stack([0 * offset, offset - 0.05, -3 * offset - 1], 1)

    image, label = torch.full((1, 1), 0.5), torch.tensor([0])
    adv_image = pgd(
        lambda x: loss(logits(x), label), image, domain=PIXELS, eps=0.1, step_size=0.01, steps=20, start=image
    )
    return bool(logits(adv_image).argmax(1) != label)


@pytest.mark.parametrize(
    ("scale", "found_by"),
    [
        (0.1, [cw_margin]),
        (1.0, [cw_margin, scaled_cross_entropy]),
        (10.0, [cross_entropy, cw_margin, scaled_cross_entropy]),
        (10_000.0, [cw_margin]),
    ],
)
def test_the_size_of_the_logits_hides_the_boundary_from_cross_entropy_alone(scale: float, found_by: list[Loss]) -> None:
    """Small ones spread its gradient over the classes, large ones leave it none; the margin does not mind."""
    assert [loss for loss in (cross_entropy, cw_margin, scaled_cross_entropy) if fooled(loss, scale)] == found_by
