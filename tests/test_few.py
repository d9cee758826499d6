"""AA-few, the ensemble for two and three classes, against the closed form of linear models."""

import pytest
import torch
from torch import Tensor, nn

from ltsd.attacks.autoattack import AAFEW, autoattack


class Linear(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = torch.randn(classes, 2 * 4 * 4, generator=torch.Generator().manual_seed(classes))

    def forward(self, inputs: Tensor) -> Tensor:
        # about balanced: white noise around grey has logits around 0
        return (inputs.flatten(1) - 0.5) @ self.weight.T


def worst_margins(model: Linear, inputs: Tensor, labels: Tensor, eps: float) -> Tensor:
    """The least of z_y - z_j in the ball and in [0, 1], [N, C]: every pixel goes where its weight sends it, alone."""
    points = inputs.flatten(1)[:, None]
    low, high = (points - eps).clamp(0, 1), (points + eps).clamp(0, 1)
    difference = model.weight[labels][:, None] - model.weight
    return ((torch.where(difference > 0, low, high) - 0.5) * difference).sum(2)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("spread", [0.1, 0.5])
def test_of_a_linear_model_every_image_falls_that_can_and_no_other(classes: int, spread: float) -> None:
    """With a spread of 0.1 the range [0, 1] never binds, and the closed form is margin > eps ||w_y - w_j||_1."""
    model, eps = Linear(classes), 0.08 * spread
    generator = torch.Generator().manual_seed(1)
    inputs = 0.5 + spread * (2 * torch.rand(60, 2, 4, 4, generator=generator) - 1)
    logits = model(inputs)
    labels = logits.argmax(1)
    labels[:5] = (labels[:5] + 1) % classes
    worst = worst_margins(model, inputs, labels, eps)
    robust = (worst > 0).sum(1) == classes - 1
    if spread == 0.1:
        own = logits.gather(1, labels[:, None])
        bound = eps * (model.weight[labels][:, None] - model.weight).abs().sum(2)
        assert torch.equal(robust, ((own - logits) > bound).sum(1) == classes - 1)
    run = autoattack(model, inputs, labels, eps=eps, version=AAFEW, seed=0, batch_size=50)
    members, standing = zip(*run, strict=True)
    assert members == ("aafew-apgd-ce", "aafew-apgd-margin", "aafew-fab", "aafew-square")
    assert 5 < robust.sum() < 50
    assert torch.equal(standing[1], robust)
    assert torch.equal(standing[-1], robust)
