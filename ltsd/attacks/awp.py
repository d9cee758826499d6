"""AWP: move the weights against the objective before its gradient is taken (Wu et al. 2020)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ltsd.ranks import sum_over_ranks

SHORTEST = 1e-20


@contextmanager
def perturbed_weights(model: nn.Module, objective: Callable[[], Tensor], *, gamma: float) -> Iterator[None]:
    """Change every weight matrix and kernel w to w + gamma ||w|| g / ||g||, with g the gradient of the objective there;
    restore it at the end.

    Biases and BatchNorm's parameters stay (as in the authors' code), and so do BatchNorm's statistics.

    Args:
        model: its weights are restored to the bit.
        objective: () -> the loss that the perturbation raises.
        gamma: relative size of the perturbation; 0 does nothing.
    """
    if gamma == 0:
        yield
        return
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    statistics = [buffer.clone() for buffer in model.buffers()]
    gradients = torch.autograd.grad(objective(), weights, materialize_grads=True)
    sum_over_ranks(gradients)
    with torch.no_grad():
        before = [weight.clone() for weight in weights]
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.add_(gradient * (gamma * weight.norm() / (gradient.norm() + SHORTEST)))
        for buffer, kept in zip(model.buffers(), statistics, strict=True):
            buffer.copy_(kept)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, kept in zip(weights, before, strict=True):
                weight.copy_(kept)
