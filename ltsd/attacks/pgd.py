"""Projected gradient descent in the ball of a domain (Madry et al. 2018): random start, step, project."""

from collections.abc import Callable

import torch
from torch import Tensor

from ltsd.attacks.domains import Domain, Radius

Objective = Callable[[Tensor], Tensor]


def steady(inputs: Tensor) -> Tensor:
    """Return the inputs, with NaN in their gradient replaced by 0, so that an attack does not move there. A step along
    NaN would leave the domain.
    """
    if not inputs.requires_grad:
        return inputs
    same = inputs.view_as(inputs)
    same.register_hook(torch.nan_to_num)  # type: ignore[no-untyped-call]
    return same


def pgd(
    objective: Objective,
    inputs: Tensor,
    *,
    domain: Domain,
    eps: Radius,
    step_size: Radius,
    steps: int,
    start: Tensor,
) -> Tensor:
    """Maximise `objective` within `eps` of the inputs by `steps` gradient steps.

    Args:
        objective: adversarial inputs [B, ...] -> a scalar whose gradient separates over the batch (a sum or a mean over
        examples); the caller has put the model into eval mode.
        inputs: [B, ...] float, such as images in [0, 1].
        domain: the threat model: which points are within eps, and what a step is.
        eps: radius, in the domain's units; a number, or broadcast to the inputs, such as [B, 1, ...] for each example.
        step_size: length of a step, as eps.
        steps: gradient steps.
        start: [B, ...], the first point, before it is projected.

    Returns:
        [B, ...] in the domain, within eps of the inputs, detached.
    """
    ball = domain.ball(inputs, eps)
    adv_inputs = ball.project(start)
    for _ in range(steps):
        adv_inputs = adv_inputs.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(adv_inputs), adv_inputs)
        adv_inputs = ball.step(adv_inputs.detach(), gradient, step_size)
    return adv_inputs.detach()
