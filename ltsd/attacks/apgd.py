"""Auto-PGD in the L-infinity ball (Croce & Hein 2020, algorithm 1): PGD with momentum and an adaptive step size."""

from collections.abc import Callable

import torch
from torch import Tensor

Scored = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Adversarial inputs [B, ...] -> the loss to maximise, [B], and the score that selects the best point, [B]."""

MOMENTUM = 0.75
RISING = 0.75
"""Share of the steps that must raise the score, else the step size halves."""


def checkpoints(steps: int) -> list[int]:
    """Return the steps after which the step size may halve: 22% of all steps, then at intervals that become shorter."""
    found, percent, before = list[int](), 22, 0
    while (after := -(-percent * steps // 100)) < steps:
        found.append(after)
        percent, before = percent + max(percent - before - 3, 6), percent
    return found


def apgd(objective: Scored, inputs: Tensor, *, eps: float, steps: int, start: Tensor) -> Tensor:
    """Maximise the objective within `eps` of the inputs, each example by itself; the first step size is 2 eps.

    At a checkpoint, the step size of an example halves, and its search continues from its best point, if fewer than
    RISING of the steps since the last checkpoint raised the score, or if neither the step size nor the best score has
    changed since then.

    Args:
        objective: see `Scored`; its values for an example depend on that example alone. The caller has put the model
            into eval mode.
        inputs: [B, ...] float in [0, 1].
        eps: radius, in units of the image range.
        steps: gradient steps; the objective is called once more, at the start.
        start: [B, ...] where the steps start; it is projected first.

    Returns:
        The point with the highest score of each example, [B, ...] in [0, 1], within eps of the inputs, detached.
    """
    low, high = (inputs - eps).clamp_(0, 1), (inputs + eps).clamp_(0, 1)
    here = before = best = start.clamp(low, high)
    gradient, score = _evaluated(objective, here)
    best_gradient, best_score, checked_score = gradient, score, score
    size = torch.full_like(score, 2 * eps)
    rises, halved, last = torch.zeros_like(score), torch.zeros_like(score, dtype=torch.bool), 0
    watched = checkpoints(steps)
    for step in range(1, steps + 1):
        ahead = (here + _wide(size, here) * gradient.sign()).clamp(low, high)
        if step > 1:
            ahead = (here + MOMENTUM * (ahead - here) + (1 - MOMENTUM) * (here - before)).clamp(low, high)
        before, here, score_before = here, ahead, score
        gradient, score = _evaluated(objective, here)
        rises += score > score_before
        is_best = score > best_score
        best, best_gradient = _where(is_best, here, best), _where(is_best, gradient, best_gradient)
        best_score = torch.where(is_best, score, best_score)
        if step in watched:
            halved = (rises < RISING * (step - last)) | (~halved & (best_score <= checked_score))
            size = torch.where(halved, size / 2, size)
            here, gradient = _where(halved, best, here), _where(halved, best_gradient, gradient)
            score = torch.where(halved, best_score, score)
            rises, last, checked_score = torch.zeros_like(rises), step, best_score
    return best


def _evaluated(objective: Scored, here: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of the loss, [B, ...], and the scores, [B]."""
    here = here.detach().requires_grad_()
    maximised, scores = objective(here)
    (gradient,) = torch.autograd.grad(maximised.sum(), here)
    return gradient, scores.detach()


def _wide(of_example: Tensor, like: Tensor) -> Tensor:
    return of_example.view(-1, *[1] * (like.ndim - 1))


def _where(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(_wide(chosen, one), one, other)
