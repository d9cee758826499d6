"""What every architecture is: features of an image, and a head that turns them into logits."""

from collections.abc import Callable

from torch import Tensor, nn

Head = Callable[[int, int], nn.Module]


class Network(nn.Module):
    """`head(features(inputs))`: methods may give a head of their own, and some read the features."""

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> logits [B, num_classes]."""
        logits: Tensor = self.head(self.features(inputs))
        return logits
