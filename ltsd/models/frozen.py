"""A network as attacks see it: fixed weights, BatchNorm folded into the convolutions, its own precision.

An attack runs a fixed network forwards and backwards many times and needs one gradient, that of the inputs.
"""

from typing import Self

import torch
from torch import Tensor, nn

from ltsd.models.folding import folded
from ltsd.models.network import Network


class Frozen(nn.Module):
    """A network in eval mode with the weights of the last `refresh`; only the inputs take a gradient.

    Answers differ from the network's by rounding, in bfloat16 by its 8 bits. The head computes in float32, and is the
    network's own.
    """

    def __init__(self, network: Network, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.head = network.head
        self.layers, self._copies = folded(nn.Sequential(*network.features), dtype)
        self._dtype = dtype
        self.refresh()

    def train(self, mode: bool = True) -> Self:
        """Do nothing: there is one mode, and the network's own modules keep theirs."""
        return self

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the network's current weights and running statistics."""
        for copy in self._copies:
            copy.refresh()

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> logits [B, num_classes], both float32."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            features: Tensor = self.layers(inputs)
        logits: Tensor = self.head(features.to(inputs.dtype))
        return logits


def frozen(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Freeze a network as it is; return any other model unchanged."""
    return Frozen(model, dtype) if isinstance(model, Network) else model
