"""Square Attack (Andriushchenko et al. 2020) in the L-infinity ball: random search by squares, without gradients.

All images of a batch share the square of a step, as in pyautoattack, and the results are the same. But a candidate that
an image has already rejected is not evaluated again: tiny images have few squares, so most candidates repeat.
"""

import math

import torch
from torch import Tensor, nn

QUERIES = 5000
SHARE = 0.8
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000)
FEWEST = 16
"""Least images in a call of the model: smaller matrix products may sum in another order and round differently."""


@torch.inference_mode()
def square(model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: float, generator: torch.Generator) -> Tensor:
    """Return which images are still classified correctly under the attack, bool [B].

    Args:
        model: [B, C, H, W] in [0, 1] -> logits.
        inputs: [B, C, H, W] float32 in [0, 1], classified correctly.
        labels: [B] int64.
        eps: radius in units of the image range.
        generator: a CPU generator, for the start and the squares.
    """
    low, high = (inputs - eps).clamp_(0, 1), (inputs + eps).clamp_(0, 1)
    channels, height, width = inputs.shape[1:]
    stripes = _signs(torch.rand(len(inputs), channels, 1, width, generator=generator)).to(inputs.device)
    adv_inputs = (inputs + eps * stripes).clamp_(0, 1)
    margin = _margin(model, adv_inputs, labels)
    changed = torch.zeros_like(labels)
    tried = dict[tuple[int, ...], int]()
    for step in range(QUERIES):
        side = _side(step, height, width)
        corner = torch.rand(2, generator=generator) * torch.tensor([height - side, width - side])
        top, left = corner.long().tolist()
        signs = _signs(torch.rand(channels, 1, 1, generator=generator))
        key = (side, top, left, *signs.flatten().long().tolist())
        # an image that has not changed since it rejected this square would reject it again
        rows = ((margin > 0) & (changed >= tried.get(key, 0))).nonzero().flatten()
        tried[key] = step
        if not len(rows):
            continue
        tries = adv_inputs[rows]
        tries[:, :, top : top + side, left : left + side] += (2 * eps * signs).to(tries.device)
        tries = tries.clamp_(low[rows], high[rows])
        found = _margin(model, tries, labels[rows])
        better = found < margin[rows]
        rows = rows[better]
        adv_inputs[rows], margin[rows], changed[rows] = tries[better], found[better], step
        if not (margin > 0).any():
            break
    right: Tensor = model(adv_inputs).argmax(1) == labels
    return right


def _signs(uniform: Tensor) -> Tensor:
    return (2 * uniform - 1).sign()


def _side(step: int, height: int, width: int) -> int:
    """Return the side of a square in pixels."""
    halvings = sum(step > last for last in HALVED_AFTER)
    side = round(math.sqrt(SHARE / 2**halvings * height * width))
    return min(max(side, 1), height, width)


def _margin(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the label's logit minus the highest other one: [B]."""
    missing = FEWEST - len(inputs)
    if missing > 0:
        inputs = torch.cat([inputs, inputs[:1].expand(missing, *inputs.shape[1:])])
    logits: Tensor = model(inputs)[: len(labels)]
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -math.inf)
    return own[:, 0] - others.amax(1)
