"""AutoAttack (Croce & Hein 2020) in L-infinity, in rounds of shards; the same answer as pyautoattack's on every image.

Its targeted members need four classes. AA-few is the ensemble for two and three.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from ltsd.answers import is_finite, is_right
from ltsd.attacks.fab import fab_targeted
from ltsd.attacks.few import apgd_margin
from ltsd.attacks.pgd import steady
from ltsd.attacks.square import square

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
AAFEW = "aafew"
AAFEW_MEMBERS = tuple(f"{AAFEW}-{attack}" for attack in ("apgd-ce", "apgd-margin", "fab", "square"))
"""They have a prefix, so that results of AA-few are never mistaken for results of AutoAttack."""
ROUNDS: dict[str, Sequence[Sequence[str]]] = {
    "standard": (STANDARD[:1], STANDARD[1:3], STANDARD[3:]),
    "apgd-ce+t": (STANDARD[:1], STANDARD[1:2]),
    AAFEW: tuple((member,) for member in AAFEW_MEMBERS),
}
"""The ensembles by name, with their members in rounds. Only `standard`, complete and with its published steps, is
called AutoAttack.

The members of a round attack the same images and can run in parallel. FAB-T draws nothing at random, so its result for
an image depends neither on the other images of the batch nor on the other targets. It can therefore share a round with
the member before it, and its targets can be split into shards: the result is the same as in sequence. The other members
draw random numbers for a whole batch at once, so each member has a round of its own.
"""
MEMBERS: Mapping[str, Sequence[str]] = {name: tuple(chain(*rounds)) for name, rounds in ROUNDS.items()}
TARGETS = 3
"""How many targets of FAB-T a shard attacks."""

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
    """A model that predicts class `said` where the original answers NaN or infinity. The gradient is 0 there, so an
    attack does not move.
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


class Shard(NamedTuple):
    """A unit of work: one batch of a round's images, attacked by one member, or with a part of its targets."""

    member: str
    part: int
    batch: int

    def __str__(self) -> str:
        return f"{self.member}-{self.part}-{self.batch}"


@dataclass(frozen=True)
class Round:
    """Members of an ensemble that attack the same images. Shards may be attacked in any order, by any process.

    An example whose answer under an attack has NaN or infinity counts as misclassified.

    Attributes:
        model: [B, C, H, W] in [0, 1] -> logits, in eval mode; at least 4 classes, for `aafew` 2 or 3.
        inputs: [N, C, H, W] float32 in [0, 1].
        labels: [N] int64.
        num_classes: how many logits the model gives.
        standing: bool [N], the examples that are right before this round.
        members: the members that attack, in order.
        eps: radius in units of the image range.
        seed: of the random starts; every shard starts the generator again.
        batch_size: examples of a shard; it changes the random starts, so fix it where you compare.
    """

    model: nn.Module
    inputs: Tensor
    labels: Tensor
    num_classes: int
    standing: Tensor
    members: Sequence[str]
    eps: float
    seed: int
    batch_size: int

    @property
    def shards(self) -> list[Shard]:
        """All shards, the longest first."""
        batches = range(len(self._batches()))
        return [
            Shard(member, part, batch) for member in self.members for part in self._parts(member) for batch in batches
        ]

    def rows(self, shard: Shard) -> Tensor:
        """Return the examples of a shard, int64 [B]."""
        return self._batches()[shard.batch]

    def attacked(self, shard: Shard) -> Tensor:
        """Attack a shard; return which of its examples are right afterwards, bool [B]."""
        rows = self.rows(shard)
        run = partial(self._attack(shard), eps=self.eps, seed=self.seed, batch_size=self.batch_size)
        return _withstood(run, self.model, self.inputs[rows], self.labels[rows])

    def joined(self, found: Mapping[Shard, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Join what `attacked` found of every shard.

        Yields:
            (member, bool [N]: examples still right after it and all before it).
        """
        standing, batches = self.standing, self._batches()
        for member in self.members:
            standing = standing.clone()
            for shard, right in found.items():
                if shard.member == member:
                    standing[batches[shard.batch]] &= right.to(standing.device)
            yield member, standing

    def _batches(self) -> Sequence[Tensor]:
        rows = self.standing.nonzero().flatten()
        return rows.split(self.batch_size) if len(rows) else ()  # type: ignore[no-untyped-call]

    @property
    def _targets(self) -> range:
        """The ranks of the logits that targeted members aim at, from the second highest."""
        return range(2, 2 + min(9, self.num_classes - 1))

    def _parts(self, member: str) -> range:
        return range(-(-len(self._targets) // TARGETS) if member == "fab-t" else 1)

    def _attack(self, shard: Shard) -> Attack:
        own: dict[str, Attack] = {
            "square": _square,
            "apgd-margin": apgd_margin,
            "fab-t": partial(fab_targeted, targets=self._targets[TARGETS * shard.part :][:TARGETS]),
        }
        name = shard.member.removeprefix(f"{AAFEW}-")
        return own.get(name) or partial(_by_library, name, targets=len(self._targets))


def autoattack(
    model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: float, version: str, seed: int, batch_size: int
) -> Iterator[tuple[str, Tensor]]:
    """Run the rounds of a version in order, each on the examples that are still classified correctly.

    Args:
        model: see `Round`, also for the other arguments except `version`.
        inputs: [N, C, H, W] float32 in [0, 1].
        labels: [N] int64.
        eps: radius in units of the image range.
        version: one of ROUNDS.
        seed: of the random starts.
        batch_size: examples attacked at a time.

    Yields:
        (member, bool [N]: examples still right after it), at the end of its round.
    """
    with torch.no_grad():
        logits = torch.cat([model(chunk) for chunk in torch.split(inputs, batch_size)])
    standing = is_right(logits, labels)
    for members in ROUNDS[version]:
        one = Round(model, inputs, labels, logits.shape[1], standing, members, eps, seed, batch_size)
        for member, standing in one.joined({shard: one.attacked(shard) for shard in one.shards}):
            yield member, standing


def _withstood(run: Run, model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return which examples, all right before a member, are right after it: bool [N].

    An answer with NaN or infinity must count as wrong, but pyautoattack takes NaN for the largest logit, and no class
    is wrong for every label. So if a model gives such answers, the examples of class 0 and all others are attacked
    again, separately, with a replacement answer that is wrong for them.
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
    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    runner = AutoAttack(
        model, eps=eps, norm="Linf", version="custom", attacks=[member], seed=seed, device=inputs.device
    )
    runner.verbose = False
    runner.apgd.n_restarts = 1
    runner.apgd_targeted.n_target_classes = targets
    _, predicted = runner.run_standard_evaluation(inputs, labels, batch_size=batch_size)
    right: Tensor = predicted == labels
    return right


def _square(model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: float, seed: int, batch_size: int) -> Tensor:
    """Return which examples are right after Square, bool [N]; every batch starts the generator again."""
    batches = zip(torch.split(inputs, batch_size), torch.split(labels, batch_size), strict=True)
    return torch.cat(
        [square(model, *batch, eps=eps, generator=torch.Generator().manual_seed(seed)) for batch in batches]
    )
