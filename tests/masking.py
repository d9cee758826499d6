"""A model that looks more robust than it is, for the tests of what looks deeper."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.data import Splits


class Masked(nn.Module):
    """A small network that hides its gradients, so that every member of AutoAttack has its own part to do.

    Large logits leave cross-entropy without a gradient; images brighter than `threshold` are rounded to nine
    shades, which leaves every loss without one.
    """

    threshold = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, inputs: Tensor) -> Tensor:
        bright = inputs.mean((1, 2, 3)) > self.threshold
        return 100 * torch.where(bright[:, None], self.net((inputs * 8).round() / 8), self.net(inputs))


def trained_masked(splits: Splits) -> Masked:
    """One that tells the digits apart."""
    torch.manual_seed(0)
    model = Masked()
    inputs, labels = splits.complete.take(torch.arange(len(splits.complete)))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model.net(inputs), labels).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def telling_rows(model: Masked, splits: Splits) -> Tensor:
    """Positions in the test set of two dark images, one that is told wrongly, and two bright ones; rounds those."""
    inputs, labels = splits.test.take(torch.arange(len(splits.test)))
    order = inputs.mean((1, 2, 3)).argsort()
    right = model.net(inputs).argmax(1) == labels
    rightly = order[right[order]]
    model.threshold = float(inputs[rightly].mean((1, 2, 3)).median())
    return torch.cat([rightly[:2], order[~right[order]][:1], rightly[-2:]])
