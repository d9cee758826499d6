"""Choose the finalist: train the best trials again on other seeds, and score them on more images.

One score with one seed on a small validation set is mostly luck. The confirmation is a race on the reserve, which has
up to five times as many images. All candidates are scored there with the trial's own seed, the better half is trained
on a second seed, the better half of those on a third. The defaults take part to the end.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from optuna.trial import FrozenTrial

from sweeps.journal.jobs import Job
from sweeps.journal.record import Record
from sweeps.settings.objectives import Objectives, Preference, Scores

PREFIX = "confirm"
SEEDS = 3
DEFAULTS = 0

Found = Mapping[int, Sequence[Scores]]
"""By the number of the trial: its scores on the reserve, one for each seed, in the order of the seeds."""


def contenders(
    complete: Sequence[FrozenTrial], found: Found, count: int, turn: int, preference: Preference
) -> list[FrozenTrial]:
    """Return the trials to score on seed number `turn`: the best `count`, halved `turn` times, and the defaults if they
    completed.

    Args:
        complete: the completed trials.
        found: the scores of the earlier turns.
        count: trials in the first turn.
        turn: number of the seed, from 0.
        preference: orders the trials.
    """
    untuned = [trial for trial in complete if trial.number == DEFAULTS]
    usual = untuned[0].values if untuned else ()
    left = [trial for trial in complete if trial.number != DEFAULTS]
    left.sort(key=lambda trial: preference.key(trial.values, usual), reverse=True)
    for past in range(turn):
        left = left[: math.ceil(count / 2**past)]
        done = {trial.number: mean(found.get(trial.number, [])[: past + 1]) for trial in (*left, *untuned)}
        left.sort(key=lambda trial: preference.key(done[trial.number], done.get(DEFAULTS, ())), reverse=True)
    return [*left[: math.ceil(count / 2**turn)], *untuned]


def trial_of(job: Job) -> int:
    """Return the trial number of a confirmation."""
    return int(job.key.split("-")[-2])


def scores(record: Record, objectives: Objectives, row: str = "") -> dict[int, list[Scores]]:
    """Return the scores of a row's trials on the reserve so far, without those that are not finite."""
    by_seed: dict[int, dict[int, Scores]] = {}
    for known in record.of_kind("confirm", row):
        told = objectives.of(known.result.values, PREFIX) if known.result is not None else None
        if told is not None:
            by_seed.setdefault(trial_of(known.job), {})[known.job.config.seed] = told
    return {number: [told for _, told in sorted(of_trial.items())] for number, of_trial in by_seed.items()}


def chosen(found: Found, preference: Preference) -> int | None:
    """Return the trial that becomes the finalist, among those scored on all seeds if there are any.

    Trials are ordered by `Preference.key`. Without a stated preference, the finalist must lead the defaults by more
    than the standard error of the lead in some objective, and must not trail them by more than it in any objective.
    With a stated preference, it must lead the defaults by more than the standard error in the weighted mean, or reach
    bounds that they do not reach. Otherwise the defaults, trial 0, are the finalist.
    """
    whole = confirmed(found)
    if not whole:
        return None
    means = {number: mean(of_trial) for number, of_trial in whole.items()}
    usual = means.get(DEFAULTS, ())
    best = sorted(means, key=lambda number: preference.key(means[number], usual), reverse=True)
    if DEFAULTS not in means:
        return best[0]
    return next((number for number in best if _beats_defaults(number, whole, preference)), DEFAULTS)


def confirmed(found: Found) -> Found:
    """Return the trials scored on all seeds; all trials if none was."""
    return {number: of_trial for number, of_trial in found.items() if len(of_trial) == SEEDS} or found


def _beats_defaults(number: int, found: Found, preference: Preference) -> bool:
    if number == DEFAULTS:
        return False
    ours, theirs = mean(found[number]), mean(found[DEFAULTS])
    if preference.is_stated:
        if preference.is_met(ours) != preference.is_met(theirs):
            return preference.is_met(ours)
        worths = {one: [(preference.worth(of_seed),) for of_seed in of_trial] for one, of_trial in found.items()}
        return preference.worth(ours) - preference.worth(theirs) > lead_error(worths, number, DEFAULTS)[0]
    errors = lead_error(found, number, DEFAULTS)
    leads = [our - their for our, their in zip(ours, theirs, strict=True)]
    return all(lead >= -error for lead, error in zip(leads, errors, strict=True)) and any(
        lead > error for lead, error in zip(leads, errors, strict=True)
    )


def lead_error(found: Found, one: int, other: int) -> Scores:
    """Return the standard error of a trial's lead over another, by objective."""
    parts = 1 / len(found[one]) + 1 / len(found[other])
    return tuple(math.sqrt(variance * parts) for variance in seed_variance(found))


def seed_variance(found: Found) -> Scores:
    """Return the variance between a trial's seeds, pooled over trials, by objective; inf if none has several seeds."""
    several = [of_trial for of_trial in found.values() if len(of_trial) > 1]
    freedom = sum(len(of_trial) - 1 for of_trial in several)
    width = len(next(iter(found.values()))[0])
    if not freedom:
        return (math.inf,) * width
    by_objective = zip(*(zip(*of_trial, strict=True) for of_trial in several), strict=True)
    return tuple(
        sum((len(column) - 1) * statistics.variance(column) for column in columns) / freedom for columns in by_objective
    )


def mean(of_trial: Sequence[Scores]) -> Scores:
    """Return the mean over seeds, by objective; () of none."""
    return tuple(statistics.fmean(column) for column in zip(*of_trial, strict=True))


@dataclass(frozen=True)
class Choice:
    """The result of a race: the finalist (None before any trial was confirmed), the ends of the front, and the scores
    behind them. `row` is the row whose search it was.
    """

    finalist: int | None
    ends: Mapping[str, int]
    found: Found
    preference: Preference
    row: str = ""

    @classmethod
    def of(cls, record: Record, objectives: Objectives, preference: Preference, row: str = "") -> Self:
        """Read the choice from the record."""
        found = scores(record, objectives, row)
        finalist = chosen(found, preference)
        return cls(finalist, ends(found, finalist, objectives), found, preference, row)


def ends(found: Found, finalist: int | None, objectives: Objectives) -> dict[str, int]:
    """Return the ends of the front by objective: the confirmed trial with the highest score, if it leads the finalist
    by more than the error and is not the defaults.
    """
    if finalist is None:
        return {}
    whole = confirmed(found)
    means = {number: mean(of_trial) for number, of_trial in whole.items()}
    best = {name: max(means, key=lambda number: means[number][k]) for k, name in enumerate(objectives.names)}
    return {
        name: number
        for k, (name, number) in enumerate(best.items())
        if number not in (finalist, DEFAULTS)
        and means[number][k] - means[finalist][k] > lead_error(whole, number, finalist)[k]
    }
