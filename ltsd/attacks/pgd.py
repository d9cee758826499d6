"""Projected gradient descent in the L-infinity ball (Madry et al. 2018): random start, step, project."""

from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor], Tensor]


def pgd(
    objective: Objective,
    inputs: Tensor,
    *,
    eps: float,
    step_size: float,
    steps: int,
    generator: torch.Generator | None,
) -> Tensor:
    """The inputs within `eps` that maximise `objective`, as far as `steps` signed gradient steps get.

    Args:
        objective: adversarial inputs [B, ...] -> a scalar whose gradient separates over the batch (a sum or
            a mean over examples); the caller has put the model into eval mode.
        inputs: [B, ...] float in [0, 1].
        eps: radius; step_size: length of a step; both in units of the image range [0, 1].
        steps: gradient steps.
        generator: draws the start, uniform in [-eps, eps]; None starts at the inputs.

    Returns:
        [B, ...] in [0, 1], within eps of the inputs, detached.
    """
    low, high = (inputs - eps).clamp_(0, 1), (inputs + eps).clamp_(0, 1)
    adv_inputs = inputs
    if generator is not None:
        noise = torch.rand(inputs.shape, generator=generator, device=inputs.device, dtype=inputs.dtype)
        adv_inputs = (inputs + eps * (2 * noise - 1)).clamp_(0, 1)
    for _ in range(steps):
        adv_inputs = adv_inputs.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(adv_inputs), adv_inputs)
        adv_inputs = (adv_inputs.detach() + step_size * gradient.sign()).clamp_(low, high)
    return adv_inputs.detach()
