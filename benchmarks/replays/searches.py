"""How trials are made in a replay: what is proposed, and what is stopped early."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler
from optuna.trial import TrialState

from replays.table import Array, decoded, encoded
from replays.world import NARROW, VALIDATED, Replay, Run, searched
from sweeps.study.sampler import BoundedTPE

EVERY = 8
WARM_TRIALS = 4


@dataclass(frozen=True)
class Search:
    """How trials are made: `proposes` by TPE as sweeps use it, TPE for two objectives, Optuna's Gaussian process, at
    random, or at random from the table. `images` are what they are validated on. `objective` is what counts: the
    score of all classes, or its mean with the tail's.
    """

    proposes: str = "tpe"
    startup: int = 6
    groups: tuple[str, ...] = NARROW
    rungs: str = "median"
    images: str = "validation"
    objective: str = "all"

    def value(self, scores: Array) -> Array:
        """The objective, of scores [..., 2]."""
        return scores[..., 0] if self.objective == "all" else scores.mean(-1)


@dataclass(frozen=True)
class Ended:
    """A trial as it ended, at an epoch; `scores` are its curve on the images that the search validates on."""

    run: Run
    scores: Array
    last: int
    seconds: float
    complete: bool


def trials(search: Search, replay: Replay) -> Iterator[Ended]:
    """Trials, the defaults first: without end, unless those of the table do."""
    epochs, ended = replay.world.table.epochs, list[Ended]()
    at, stops = RUNG_SETS[search.rungs]
    rungs = [epochs.index(epoch) for epoch in at]
    points = PROPOSALS[search.proposes](search, replay)
    point = next(points)
    while True:
        run = replay.run(point)
        scores = run.curve if search.images == "validation" else run.curve - run.curve[-1] + run.reserve
        last = next((e for e in rungs if stops(search, scores, e, ended)), len(epochs) - 1)
        student = (run.seconds - run.teacher_seconds) * epochs[last] / epochs[-1]
        if search.images == "reserve":
            # A validation costs as much as an epoch; only those that something is decided by are on all images.
            more = len(replay.world.table.labels) / (VALIDATED * len(np.unique(replay.world.table.labels))) - 1
            student *= 1 + more * (1 + sum(e < last for e in rungs)) / (epochs[-1] + len(epochs))
        ended.append(Ended(run, scores, last, run.teacher_seconds + student, last == len(epochs) - 1))
        yield ended[-1]
        try:
            point = points.send(ended[-1])
        except StopIteration:
            return


Proposals = Generator[Array, Ended, None]


def _from_table(search: Search, replay: Replay) -> Proposals:
    rows = replay.world.table.distinct
    for row in (rows[0], *replay.random.permutation(rows[1:])):
        yield replay.world.table.points[row]


def _at_random(search: Search, replay: Replay) -> Proposals:
    yield replay.world.defaults
    while True:
        yield replay.world.point(search.groups, replay.random)


def _by_optuna(search: Search, replay: Replay) -> Proposals:
    whole, pareto = replay.world.table.space, search.proposes == "pareto"
    space, seed = searched(whole, search.groups), int(replay.random.integers(2**31))
    study = optuna.create_study(sampler=_sampler(search, space, seed), directions=["maximize"] * (2 if pareto else 1))
    defaults = decoded(replay.world.defaults, whole)
    study.enqueue_trial({name: defaults[name] for name in space})
    while True:
        trial = study.ask(space)
        ended = yield np.array(encoded(defaults | trial.params, whole))
        if pareto:
            values = [float(score) for score in ended.scores[-1]]
            study.tell(trial, values if ended.complete else None, None if ended.complete else TrialState.PRUNED)
            continue
        value = search.value(ended.scores)
        for place in _validated(replay.world.table.epochs, ended.last):
            trial.report(float(value[place]), replay.world.table.epochs[place])
        study.tell(trial, float(value[-1]) if ended.complete else None, None if ended.complete else TrialState.PRUNED)


def _sampler(search: Search, space: Mapping[str, Any], seed: int) -> BaseSampler:
    if search.proposes == "gp":
        return GPSampler(seed=seed, n_startup_trials=search.startup, deterministic_objective=False)
    sampler = BoundedTPE(space, seed)
    sampler._n_startup_trials = search.startup
    return sampler


PROPOSALS = {"table": _from_table, "random": _at_random, "tpe": _by_optuna, "pareto": _by_optuna, "gp": _by_optuna}


def _validated(epochs: Sequence[int], last: int) -> list[int]:
    return [place for place, epoch in enumerate(epochs[: last + 1]) if epoch % EVERY == 0]


Stops = Callable[[Search, Array, int, Sequence[Ended]], bool]


def _below_median(search: Search, scores: Array, at: int, ended: Sequence[Ended]) -> bool:
    """What Optuna's MedianPruner says, as sweeps use it: the best so far against what complete trials had here."""
    peers = [search.value(one.scores)[at] for one in ended if one.complete]
    return len(peers) >= WARM_TRIALS and bool(search.value(scores)[1 : at + 1 : 2].max() < np.median(peers))


def _not_among(part: int) -> Stops:
    """What Ray's ASHA says: the upper 1/`part` of all that came here go on."""

    def stops(search: Search, scores: Array, at: int, ended: Sequence[Ended]) -> bool:
        peers = [search.value(one.scores)[at] for one in ended if one.last >= at]
        return bool(peers) and bool(search.value(scores)[at] < np.quantile(peers, 1 - 1 / part))

    return stops


def _dominated(search: Search, scores: Array, at: int, ended: Sequence[Ended]) -> bool:
    """Whether more than half of those that came here lie on better fronts of the two scores."""
    peers = [one.scores[at] for one in ended if one.last >= at]
    places = fronts(np.array([*peers, scores[at]]))
    return len(peers) >= WARM_TRIALS and bool((places[:-1] < places[-1]).mean() > 0.5)


def fronts(points: Array) -> Array:
    """Of points [N, 2] the front that each is on: 0 for those that none is better than, and so on without them."""
    found, left, front = np.zeros(len(points)), np.ones(len(points), bool), 0
    while left.any():
        better = (points[:, None] >= points).all(-1) & (points[:, None] > points).any(-1) & left[:, None]
        first = left & ~better.any(0)
        found[first], left, front = front, left & ~first, front + 1
    return found


RUNG_SETS: Mapping[str, tuple[tuple[int, ...], Stops]] = {
    "none": ((), _below_median),
    "median": ((24, 32), _below_median),
    "median early": ((8, 16, 24, 32), _below_median),
    "half late": ((24, 32), _not_among(2)),
    "half": ((8, 16, 32), _not_among(2)),
    "third": ((4, 12), _not_among(3)),
    "third late": ((24,), _not_among(3)),
    "dominated": ((24, 32), _dominated),
}
"""At which epochs a trial can be stopped, and by which rule."""
