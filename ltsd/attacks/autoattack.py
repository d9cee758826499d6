"""AutoAttack (Croce & Hein 2020) through pyautoattack, one member after another, L-infinity."""

import logging
from collections.abc import Iterator, Mapping

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
GRADIENT_FREE = "square"
MEMBERS = {"standard": STANDARD, "apgd-ce+t": STANDARD[:2]}
"""The ensembles by name: only `standard`, complete and with its published steps, is called AutoAttack."""


def autoattack(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    version: str,
    seed: int,
    batch_size: int,
    known: Mapping[str, Tensor],
) -> Iterator[tuple[str, Tensor]]:
    """Run the members in order, each on what the ones before left standing.

    Args:
        model: [B, C, H, W] in [0, 1] -> logits, in eval mode, at least 4 classes.
        inputs: [N, C, H, W] float32 in [0, 1]; labels: [N] int64.
        eps: radius in units of the image range.
        version: `standard` or `apgd-ce+t`.
        seed, batch_size: both change the random starts, so both are fixed by whoever compares.
        known: what members yielded in an earlier run of the same, which are not run again; every member draws from
            the seed anew, so that the rest comes to the same bits.

    Yields:
        (member, bool [N]: examples still right after it), as each member ends.
    """
    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    with torch.no_grad():
        logits = torch.cat([model(chunk) for chunk in torch.split(inputs, batch_size)])
    targets = min(9, logits.shape[1] - 1)
    standing = logits.argmax(1) == labels
    for member in MEMBERS[version]:
        rows = standing.nonzero().flatten()
        if member in known:
            standing = known[member].to(inputs.device)
        elif len(rows):
            runner = AutoAttack(
                model,
                eps=eps,
                norm="Linf",
                version="custom",
                attacks=[member],
                seed=seed,
                device=inputs.device,
            )
            runner.verbose = False
            runner.apgd.n_restarts = 1
            runner.fab.n_target_classes = runner.apgd_targeted.n_target_classes = targets
            with torch.inference_mode(member == GRADIENT_FREE):
                _, predicted = runner.run_standard_evaluation(inputs[rows], labels[rows], batch_size=batch_size)
            standing = standing.clone()
            standing[rows] = predicted == labels[rows]
        yield member, standing
