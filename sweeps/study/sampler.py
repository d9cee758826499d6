"""The sampler: TPE with a fixed space and floors, which sees a limited number of trials."""

import copy
import heapq
import math
from collections.abc import Container, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from sweeps.journal.jobs import rank
from sweeps.settings.objectives import Scores
from sweeps.study.fronts import front_ranks

RANDOM_TRIALS = 12
SEEN = 500
BEST = 25
STOPPED = 10.0  # scores lie in [0, 1]
_OVER = (TrialState.COMPLETE, TrialState.PRUNED)


class BoundedTPE(TPESampler):
    """TPE with a fixed space instead of one inferred from all earlier trials. It sees at most `SEEN` finished trials,
    so the cost of a proposal does not grow with the number of trials.

    With several objectives, points below one of the `floors` rank after all others, by their distance from it. Without
    floors the front would extend far into regions that nobody wants.
    """

    def __init__(self, space: Mapping[str, BaseDistribution], seed: int, floors: Scores | None = None) -> None:
        super().__init__(seed=seed, n_startup_trials=RANDOM_TRIALS)
        self._floors = floors
        self._known = {name: among for name, among in sorted(space.items()) if not among.single()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the space that is sampled jointly: the whole space."""
        return self._known

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw a point, given the trials that the sampler sees."""
        return super().sample_relative(_Part(study, self._floors), trial, search_space)


class _Part(optuna.Study):
    """The part of a study that the sampler sees; Optuna's Hyperband shows its sampler a bracket in the same way.

    With several objectives TPE cannot rank trials that were stopped early. So these get a larger distance below the
    floors than any other trial.
    """

    def __init__(self, study: optuna.Study, floors: Scores | None) -> None:
        vars(self).update(vars(study))
        self._seen = seen(study.get_trials(deepcopy=False, states=(*_OVER, TrialState.RUNNING)))
        if len(study.directions) > 1:
            self._seen = [_constrained(trial, floors) for trial in self._seen]

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in self._seen if states is None or trial.state in states]


def seen(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Select the trials for a proposal: all running ones and at most `SEEN` finished ones. These are the `BEST` best,
    which are as many as TPE can count as good, and the latest ones.
    """
    over = [trial for trial in trials if trial.state != TrialState.RUNNING]
    if len(over) <= SEEN:
        return trials
    good = {trial.number: trial for trial in _good(over)}
    latest = [trial for trial in over[-SEEN:] if trial.number not in good][BEST - SEEN :]
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    return sorted([*good.values(), *latest, *running], key=lambda trial: trial.number)


def _good(over: list[FrozenTrial]) -> list[FrozenTrial]:
    """Return the best finished trials in TPE's order: complete ones by front, then pruned ones by epoch and score."""
    complete = [trial for trial in over if trial.state == TrialState.COMPLETE]
    ranks = front_ranks([tuple(trial.values) for trial in complete])
    best = [trial for _, trial in heapq.nsmallest(BEST, zip(ranks, complete, strict=True), key=lambda pair: pair[0])]
    if len(best) < BEST:
        pruned = [trial for trial in over if trial.state == TrialState.PRUNED]
        best += heapq.nlargest(BEST - len(best), pruned, key=_last_score)
    return best


def _last_score(trial: FrozenTrial) -> tuple[int, float]:
    epoch, score = max(trial.intermediate_values.items(), default=(-1, 0.0))
    return epoch, rank(score)


def _constrained(trial: FrozenTrial, floors: Scores | None) -> FrozenTrial:
    """Return a finished trial with its distance below the floors as Optuna constraints; other trials are unchanged."""
    if trial.state not in _OVER:
        return trial
    shown = copy.copy(trial)
    shown.system_attrs = {}
    if trial.state == TrialState.PRUNED:
        shown.set_constraint("stopped early", STOPPED)
        shown.intermediate_values = {}
    elif floors is not None:
        for objective, (floor, score) in enumerate(zip(floors, trial.values, strict=True)):
            shown.set_constraint(str(objective), floor - score if math.isfinite(floor) else 0.0)
    return shown
