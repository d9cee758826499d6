"""AutoAttack (Croce & Hein 2020), member by member, L-infinity; the same answer as pyautoattack's on every image.

Its targeted members need four classes. AA-few is the ensemble for two and three.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from ltsd.answers import is_finite, is_right
from ltsd.attacks.few import apgd_margin
from ltsd.attacks.pgd import steady
from ltsd.attacks.square import square

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
AAFEW = "aafew"
AAFEW_MEMBERS = tuple(f"{AAFEW}-{attack}" for attack in ("apgd-ce", "apgd-margin", "fab", "square"))
"""Named otherwise than those of AutoAttack: what stands after one is never taken for what stands after the other."""
MEMBERS = {"standard": STANDARD, "apgd-ce+t": STANDARD[:2], AAFEW: AAFEW_MEMBERS}
"""The ensembles by name: only `standard`, complete and with its published steps, is called AutoAttack."""

Run = Callable[[nn.Module, Tensor, Tensor], Tensor]
Attack = Callable[..., Tensor]


class NotFiniteError(ArithmeticError):
    """A model answered NaN or infinity to an attack."""


class Finite(nn.Module):
    """A model that must give finite answers.

    Raises:
        NotFiniteError: an answer is not finite.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the model's answer, bit for bit."""
        logits: Tensor = self.model(inputs)
        if not is_finite(logits).all():
            raise NotFiniteError
        return logits


class Replaced(nn.Module):
    """A model that answers class `said` where the original answers NaN or infinity; there, attacks have no gradient and
    stay.
    """

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
    """Run the members in order, each on the examples that the ones before left right.

    An example with NaN or infinity in its answer under an attack counts as fallen.

    Args:
        model: [B, C, H, W] in [0, 1] -> logits, in eval mode; at least 4 classes, for `aafew` 2 or 3.
        inputs: [N, C, H, W] float32 in [0, 1].
        labels: [N] int64.
        eps: radius in units of the image range.
        version: one of MEMBERS.
        seed: of the random starts.
        batch_size: examples attacked at a time; it changes the random starts, so fix it where you compare.
        known: results of members in an earlier run of the same exam; these are not run again. Every member draws from
        the seed anew, so the rest has the same bits.

    Yields:
        (member, bool [N]: examples still right after it), when a member ends.
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
            run = partial(_attack(member, targets), eps=eps, seed=seed, batch_size=batch_size)
            standing = standing.clone()
            standing[rows] = _withstood(run, model, inputs[rows], labels[rows])
        yield member, standing


def _attack(member: str, targets: int) -> Attack:
    own: dict[str, Attack] = {"square": _square, "apgd-margin": apgd_margin}
    name = member.removeprefix(f"{AAFEW}-")
    return own.get(name) or partial(_by_library, name, targets=targets)


def _withstood(run: Run, model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return which examples, all right before a member, are right after it: bool [N].

    pyautoattack takes NaN for the largest logit, and has no answer that is wrong for every label. So if a model gives
    such answers, the examples of class 0 and the others are attacked again, separately.
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
    """Return which examples are right after a member, bool [N], by pyautoattack."""
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
    """Return which examples are right after Square, bool [N]; every batch draws from the seed anew."""
    batches = zip(torch.split(inputs, batch_size), torch.split(labels, batch_size), strict=True)
    return torch.cat(
        [square(model, *batch, eps=eps, generator=torch.Generator().manual_seed(seed)) for batch in batches]
    )
