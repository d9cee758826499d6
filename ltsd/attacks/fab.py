"""Targeted FAB (Croce & Hein, ICML 2020) in the L-infinity ball, by pyautoattack."""

from collections.abc import Sequence

import torch
from pyautoattack.fab_pt import FABAttack_PT
from torch import Tensor, nn

STEPS = 100


@torch.no_grad()
def fab_targeted(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    seed: int,
    batch_size: int,
    targets: Sequence[int],
) -> Tensor:
    """Return which examples are still classified correctly after FAB towards each target in turn: bool [N].

    FAB starts at the inputs and draws nothing at random, so the result for an image does not depend on the others.

    Args:
        model: [B, C, H, W] in [0, 1] -> logits.
        inputs: [N, C, H, W] float32 in [0, 1], classified correctly.
        labels: [N] int64.
        eps: radius in units of the image range.
        seed: without effect; it is here because every member takes one.
        batch_size: examples attacked at a time.
        targets: ranks of the logits to aim at: 2 is the second highest.
    """
    fab = FABAttack_PT(model, n_restarts=1, n_iter=STEPS, eps=eps, seed=seed, verbose=False, device=inputs.device)
    standing = torch.ones_like(labels, dtype=torch.bool)
    for batch in torch.arange(len(labels), device=labels.device).split(batch_size):  # type: ignore[no-untyped-call]
        for fab.target_class in targets:
            rows = batch[standing[batch]]
            if len(rows):
                standing[rows] = _withstood(fab, model, inputs[rows], labels[rows], eps)
    return standing


def _withstood(fab: FABAttack_PT, model: nn.Module, inputs: Tensor, labels: Tensor, eps: float) -> Tensor:
    adv_inputs = fab.attack_single_run(inputs, labels, use_rand_start=False, is_targeted=True)
    is_outside = (adv_inputs - inputs).abs().flatten(1).amax(1) > eps
    standing: Tensor = (model(adv_inputs).argmax(1) == labels) | is_outside
    return standing
