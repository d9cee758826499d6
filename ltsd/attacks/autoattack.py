"""AutoAttack (Croce & Hein 2020), one member after another, L-infinity; pyautoattack's verdict on every image."""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from ltsd.answers import is_finite, is_right
from ltsd.attacks.pgd import steady
from ltsd.attacks.square import square

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
MEMBERS = {"standard": STANDARD, "apgd-ce+t": STANDARD[:2]}
"""The ensembles by name: only `standard`, complete and with its published steps, is called AutoAttack."""

Run = Callable[[nn.Module, Tensor, Tensor], Tensor]
Attack = Callable[..., Tensor]


class NotFiniteError(ArithmeticError):
    """A model answered NaN or infinity to an attack."""


class Finite(nn.Module):
    """A model that is known to answer numbers.

    Raises:
        NotFiniteError: it does not.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """As the model has it, to the bit."""
        logits: Tensor = self.model(inputs)
        if not is_finite(logits).all():
            raise NotFiniteError
        return logits


class Replaced(nn.Module):
    """A model that says class `said` where it answered NaN or infinity; there attacks stay, without a gradient."""

    def __init__(self, model: nn.Module, said: int) -> None:
        super().__init__()
        self.model, self.said = model, said

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [B, C, H, W] -> logits [B, num_classes], all finite."""
        logits: Tensor = self.model(steady(inputs))
        said = torch.zeros_like(logits)
        said[:, self.said] = 1
        return torch.where(is_finite(logits)[:, None], logits, said)


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

    An example whose answer an attack makes NaN or infinity has fallen.

    Args:
        model: [B, C, H, W] in [0, 1] -> logits, in eval mode, at least 4 classes.
        inputs: [N, C, H, W] float32 in [0, 1].
        labels: [N] int64.
        eps: radius in units of the image range.
        version: `standard` or `apgd-ce+t`.
        seed: of the random starts.
        batch_size: examples attacked at a time; it changes the random starts, so fix it where you compare.
        known: what members yielded in an earlier run of the same, which are not run again; every member draws from
            the seed anew, so that the rest comes to the same bits.

    Yields:
        (member, bool [N]: examples still right after it), as each member ends.
    """
    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    with torch.no_grad():
        logits = torch.cat([model(chunk) for chunk in torch.split(inputs, batch_size)])
    targets = min(9, logits.shape[1] - 1)
    standing = is_right(logits, labels)
    for member in MEMBERS[version]:
        rows = standing.nonzero().flatten()
        if member in known:
            standing = known[member].to(inputs.device)
        elif len(rows):
            attack: Attack = _square if member == "square" else partial(_by_library, member, targets=targets)
            run = partial(attack, eps=eps, seed=seed, batch_size=batch_size)
            standing = standing.clone()
            standing[rows] = _withstood(run, model, inputs[rows], labels[rows])
        yield member, standing


def _withstood(run: Run, model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Which examples, all of them right before it, are right after a member: bool [N].

    pyautoattack takes NaN for the largest logit, and knows of no answer that is wrong whatever the label. So where a
    model turns out to give such answers, the examples of class 0 and the others are attacked again, apart.
    """
    try:
        return run(Finite(model), inputs, labels)
    except NotFiniteError:
        standing = torch.zeros_like(labels, dtype=torch.bool)
        for rows, wrong in ((labels == 0, 1), (labels != 0, 0)):
            if rows.any():
                standing[rows] = run(Replaced(model, wrong), inputs[rows], labels[rows])
        return standing


def _by_library(
    member: str,
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    targets: int,
    seed: int,
    batch_size: int,
) -> Tensor:
    """Which examples are right after a member, bool [N], as pyautoattack has it."""
    runner = AutoAttack(
        model, eps=eps, norm="Linf", version="custom", attacks=[member], seed=seed, device=inputs.device
    )
    runner.verbose = False
    runner.apgd.n_restarts = 1
    runner.fab.n_target_classes = runner.apgd_targeted.n_target_classes = targets
    _, predicted = runner.run_standard_evaluation(inputs, labels, batch_size=batch_size)
    right: Tensor = predicted == labels
    return right


def _square(model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: float, seed: int, batch_size: int) -> Tensor:
    """Which examples are right after Square, bool [N]; every batch draws from the seed anew."""
    batches = zip(torch.split(inputs, batch_size), torch.split(labels, batch_size), strict=True)
    return torch.cat(
        [square(model, *batch, eps=eps, generator=torch.Generator().manual_seed(seed)) for batch in batches]
    )
