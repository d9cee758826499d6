"""Projected gradient descent in the L-infinity ball (Madry et al. 2018): random start, step, project."""

from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor], Tensor]
Radius = float | Tensor

GAUSSIAN_SPREAD = 0.001


def uniform_start(inputs: Tensor, *, eps: Radius, generator: torch.Generator) -> Tensor:
    """Return the inputs with every pixel moved by a uniform draw from [-eps, eps]."""
    noise = torch.rand(inputs.shape, generator=generator, device=inputs.device, dtype=inputs.dtype)
    return (inputs + eps * (2 * noise - 1)).clamp_(0, 1)


def gaussian_start(inputs: Tensor, *, generator: torch.Generator) -> Tensor:
    """Return the inputs with a little normal noise: a divergence from the inputs has no gradient at the inputs."""
    noise = torch.randn(inputs.shape, generator=generator, device=inputs.device, dtype=inputs.dtype)
    return (inputs + GAUSSIAN_SPREAD * noise).clamp_(0, 1)


def steady(inputs: Tensor) -> Tensor:
    """Return the inputs with a gradient of 0 where it would be NaN: an attack without a direction stays, and does not
    leave the image range.
    """
    if not inputs.requires_grad:
        return inputs
    same = inputs.view_as(inputs)
    same.register_hook(torch.nan_to_num)  # type: ignore[no-untyped-call]
    return same


def pgd(objective: Objective, inputs: Tensor, *, eps: Radius, step_size: Radius, steps: int, start: Tensor) -> Tensor:
    """Maximise `objective` within `eps` of the inputs by `steps` signed gradient steps.

    Args:
        objective: adversarial inputs [B, ...] -> a scalar whose gradient separates over the batch (a sum or a mean over
        examples); the caller has put the model into eval mode.
        inputs: [B, ...] float in [0, 1].
        eps: radius, in units of the image range; a number, or [B, 1, ...] for each example.
        step_size: length of a step, in the same units; a number, or [B, 1, ...].
        steps: gradient steps.
        start: [B, ...] where the steps start; it is projected first.

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
