"""Every architecture: features of an image, and a head that maps them to logits."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Head = Callable[[int, int], nn.Module]


class Opaque(nn.Module):
    """A layer that torch.fx cannot look into: a frozen network keeps a copy of it, as it is."""


class Features(nn.Sequential):
    """The layers up to the head. `dtype` is what they compute in; weights, inputs and features are float32."""

    dtype: torch.dtype = torch.float32

    def forward(self, input: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> features [B, size], of an encoder-decoder [B, H, W, size], of a
        detector [B, L, size].
        """
        with torch.autocast(input.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            features: Tensor = super().forward(input)  # type: ignore[no-untyped-call]
        return features.to(input.dtype)


class Network(nn.Module):
    """`head(features(inputs))`: methods may bring their own head, and some read the features."""

    def __init__(self, features: Features, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> logits [B, ..., num_classes]; the head computes in float32."""
        logits: Tensor = self.head(self.features(inputs))
        return logits
