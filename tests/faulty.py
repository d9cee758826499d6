"""A network that answers NaN or infinity to some images, for the tests of what becomes of those."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

VALUES = (float("nan"), float("inf"), float("-inf"))


class Faulty(nn.Module):
    """Another network, whose first logit is `value` for the inputs that `fails` tells: bool [B], or [B, 1, 1] of label
    maps.
    """

    def __init__(self, net: nn.Module, fails: Callable[[Tensor], Tensor], value: float = VALUES[0]) -> None:
        super().__init__()
        self.net, self.fails, self.value = net, fails, value

    def forward(self, inputs: Tensor) -> Tensor:
        factor = torch.where(self.fails(inputs), self.value, 1.0)[..., None]
        logits = self.net(inputs)
        return torch.cat([logits[..., :1] * factor, logits[..., 1:]], -1)


class Bands(nn.Module):
    """Says one of four classes by the brightness of an image; 0.1 from where it is surest it says another."""

    centres = torch.tensor([0.1, 0.3, 0.5, 0.7])

    def forward(self, inputs: Tensor) -> Tensor:
        brightness: Tensor = inputs[:, :, 1:].mean((1, 2, 3))
        return -100 * (brightness[:, None] - self.centres) ** 2

    def images(self, labels: Tensor) -> Tensor:
        """The image of each class that it is surest of."""
        return self.centres[labels][:, None, None, None].expand(-1, 1, 8, 8).clone()
