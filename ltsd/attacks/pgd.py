"""Projected gradient descent in the L-infinity ball (Madry et al. 2018): random start, step, project."""

from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor], Tensor]
Radius = float | Tensor

GAUSSIAN_SPREAD = 0.001


def uniform_start(inputs: Tensor, *, eps: Radius, generator: torch.Generator) -> Tensor:
    """The inputs, each pixel moved by its own uniform draw from [-eps, eps]."""
    noise = torch.rand(inputs.shape, generator=generator, device=inputs.device, dtype=inputs.dtype)
    return (inputs + eps * (2 * noise - 1)).clamp_(0, 1)


def gaussian_start(inputs: Tensor, *, generator: torch.Generator) -> Tensor:
    """The inputs with a little normal noise: where a divergence from them is maximised, they have no gradient."""
    noise = torch.randn(inputs.shape, generator=generator, device=inputs.device, dtype=inputs.dtype)
    return (inputs + GAUSSIAN_SPREAD * noise).clamp_(0, 1)


def steady(inputs: Tensor) -> Tensor:
    """The inputs, with a gradient that is 0 where it would be NaN: an attack stays where it is told no direction, and
    does not leave the images.
    """
    if not inputs.requires_grad:
        return inputs
    same = inputs.view_as(inputs)
    same.register_hook(torch.nan_to_num)  # type: ignore[no-untyped-call]
    return same


def pgd(objective: Objective, inputs: Tensor, *, eps: Radius, step_size: Radius, steps: int, start: Tensor) -> Tensor:
    """The inputs within `eps` that maximise `objective`, as far as `steps` signed gradient steps get.

    Args:
        objective: adversarial inputs [B, ...] -> a scalar whose gradient separates over the batch (a sum or
            a mean over examples); the caller has put the model into eval mode.
        inputs: [B, ...] float in [0, 1].
        eps: radius; step_size: length of a step; both in units of the image range [0, 1], a number or [B, 1, ...],
            one for each example.
        steps: gradient steps.
        start: [B, ...] where they begin, projected first.

    Returns:
        [B, ...] in [0, 1], within eps of the inputs, detached.
    """
    low, high = (inputs - eps).clamp_(0, 1), (inputs + eps).clamp_(0, 1)
    adv_inputs = start.clamp(low, high)
    for _ in range(steps):
        adv_inputs = adv_inputs.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(adv_inputs), adv_inputs)
        adv_inputs = (adv_inputs.detach() + step_size * gradient.sign()).clamp_(low, high)
    return adv_inputs.detach()
