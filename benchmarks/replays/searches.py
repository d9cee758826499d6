"""How trials are made in a replay: by the sampler, the rungs and the objectives of a sweep."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.trial import TrialState

from replays.table import Array, decoded, encoded
from replays.world import VALIDATED, Replay, Run, searched
from sweeps.settings.groups import OWN, SEARCHED
from sweeps.settings.objectives import FIRST, Objectives, Preference, Scores
from sweeps.study.fronts import is_in_worse_half
from sweeps.study.sampler import RANDOM_TRIALS, BoundedTPE
from sweeps.study.searcher import WARM_TRIALS

OBJECTIVES = Objectives(("robust", "tail"))
Ranges = tuple[tuple[str, BaseDistribution], ...]


@dataclass(frozen=True)
class Search:
    """How trials are made: `proposes` by TPE as sweeps use it, at random, or by Optuna's Gaussian process, after
    `startup` random points. Of the wide space the `groups` are searched, some knobs in narrower `ranges`. Trials are
    stopped at the epochs of `rungs` and validated on some `images`; the first objective counts `first` times.
    """

    proposes: str = "tpe"
    startup: int = RANDOM_TRIALS
    groups: tuple[str, ...] = (*OWN, *SEARCHED)
    ranges: Ranges = ()
    rungs: tuple[int, ...] = ()
    images: str = "validation"
    first: float = FIRST

    @property
    def preference(self) -> Preference:
        """Which of several points is wanted."""
        usual = Preference.read(None, OBJECTIVES)
        return Preference(usual.bounds, (self.first, 1.0))

    def sampler(self, space: Mapping[str, BaseDistribution], seed: int, floors: Scores | None) -> BaseSampler:
        """What proposes the next point."""
        if self.proposes == "gp":
            return GPSampler(seed=seed, n_startup_trials=self.startup, deterministic_objective=False)
        if self.proposes == "random":
            return RandomSampler(seed=seed)
        sampler = BoundedTPE(space, seed, floors)
        sampler._n_startup_trials = self.startup
        return sampler


@dataclass(frozen=True)
class Ended:
    """A trial as it ended, at an epoch; `scores` are its curve on the images that the search validates on."""

    run: Run
    scores: Array
    last: int
    seconds: float
    complete: bool

    @property
    def values(self) -> Scores:
        """Its last scores."""
        return tuple(map(float, self.scores[self.last]))


def trials(search: Search, replay: Replay) -> Iterator[Ended]:
    """Trials without end, the defaults first."""
    whole = replay.world.table.space
    space = searched(whole, search.groups) | dict(search.ranges)
    seed, defaults = int(replay.random.integers(2**31)), decoded(replay.world.defaults, whole)
    study, ended = optuna.create_study(directions=["maximize"] * len(OBJECTIVES.names)), list[Ended]()
    study.enqueue_trial({name: defaults[name] for name in space})
    while True:
        usual = ended[0].values if ended and ended[0].complete else ()
        study.sampler = search.sampler(space, seed + len(ended), search.preference.floors(usual))
        trial = study.ask(space)
        run = replay.run(np.array(encoded(defaults | trial.params, whole)))
        ended.append(_ended(search, run, ended, replay))
        complete = ended[-1].complete
        study.tell(trial, ended[-1].values if complete else None, None if complete else TrialState.PRUNED)
        yield ended[-1]


def _ended(search: Search, run: Run, before: Sequence[Ended], replay: Replay) -> Ended:
    epochs, labels = replay.world.table.epochs, replay.world.table.labels
    scores = run.curve if search.images == "validation" else run.curve - run.curve[-1] + run.reserve
    rungs = [epochs.index(epoch) for epoch in search.rungs]
    last = next((rung for rung in rungs if _is_poor(scores, rung, before)), len(epochs) - 1)
    student = (run.seconds - run.teacher_seconds) * epochs[last] / epochs[-1]
    if search.images == "reserve":
        # A validation costs as much as an epoch; only those that something is decided by are on all images.
        more = len(labels) / (VALIDATED * len(np.unique(labels))) - 1
        student *= 1 + more * (1 + sum(rung < last for rung in rungs)) / (epochs[-1] + len(epochs))
    return Ended(run, scores, last, run.teacher_seconds + student, last == len(epochs) - 1)


def _is_poor(scores: Array, rung: int, before: Sequence[Ended]) -> bool:
    others = [tuple(map(float, one.scores[rung])) for one in before if one.last >= rung]
    return len(others) >= WARM_TRIALS and is_in_worse_half(tuple(map(float, scores[rung])), others)
