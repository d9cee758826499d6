"""Which of the best trials becomes the finalist: they are trained again on other seeds and scored on more images.

One score of one seed on a small validation set mostly ranks luck. The confirmation reads the reserve, which has up to
five times as many images, and is a race: all candidates are scored there with the trial's own seed, the better half
of them earns a second seed, the better half of these a third. The defaults run along to the end.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from optuna.trial import FrozenTrial

from ltsd.config import Config
from sweeps.journal.exchange import Exchange
from sweeps.journal.jobs import Job, newest_checkpoint, trial_key
from sweeps.journal.record import Record
from sweeps.settings.objectives import Objectives, Preference, Scores

PREFIX = "confirm"
SEEDS = 3
DEFAULTS = 0

Found = Mapping[int, Sequence[Scores]]
"""The scores on the reserve, one a seed in the order of the seeds, by the number of the trial."""


def contenders(
    complete: Sequence[FrozenTrial], found: Found, count: int, turn: int, preference: Preference
) -> list[FrozenTrial]:
    """The trials that are scored on seed number `turn`: of the `count` best the better half, `turn` times; and the
    defaults, where they were completed.

    Args:
        found: the scores of the turns before.
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


def confirmation_jobs(
    row: str, base: Config, trials: Sequence[FrozenTrial], turn: int, folder: Path, exchange: Exchange
) -> list[Job]:
    """Each trial of a row's search on seed number `turn`; on the trial's own, the first, its last checkpoint is only
    scored again.
    """
    jobs = []
    for trial in trials:
        config, start = base.override(trial.params), None
        if turn == 0:
            own = Job("trial", trial_key(row, trial.number), config, "train", str(folder), row=row)
            exchange.bring_checkpoint(own)
            start = newest_checkpoint(own)
        seed = base.seed + turn
        key = f"{trial_key(row, trial.number).replace('trial', PREFIX, 1)}-s{seed}"
        of_seed = replace(config, seed=seed)
        jobs.append(Job("confirm", key, of_seed, "train", str(folder), resume=str(start or ""), row=row))
    return jobs


def trial_of(job: Job) -> int:
    """The number of the trial that a confirmation belongs to."""
    return int(job.key.split("-")[-2])


def scores(record: Record, objectives: Objectives, row: str = "") -> dict[int, list[Scores]]:
    """The scores of a row's trials on the reserve so far; those that are no numbers are none."""
    by_seed: dict[int, dict[int, Scores]] = {}
    for known in record.of_kind("confirm", row):
        told = objectives.of(known.result.values, PREFIX) if known.result is not None else None
        if told is not None:
            by_seed.setdefault(trial_of(known.job), {})[known.job.config.seed] = told
    return {number: [told for _, told in sorted(of_trial.items())] for number, of_trial in by_seed.items()}


def chosen(found: Found, preference: Preference) -> int | None:
    """The trial that becomes the finalist, of those that were scored on all seeds where there are some.

    The order is that of `Preference.key`. Where no preference is stated, a trial has to lead the defaults in some
    objective by more than the standard error of that lead, and not to fall behind them in any by more than it; where
    one is, to lead them in the weighted mean, or to reach bounds that they do not. Else the defaults, trial 0, are the
    finalist.
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
    """The trials that were scored on all seeds; all of them where none was."""
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
    """The standard error of a trial's lead over another, objective by objective."""
    parts = 1 / len(found[one]) + 1 / len(found[other])
    return tuple(math.sqrt(variance * parts) for variance in seed_variance(found))


def seed_variance(found: Found) -> Scores:
    """The variance between the seeds of a trial, pooled over trials, by objective; inf where no trial has several."""
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
    """The mean over seeds, objective by objective; () of none."""
    return tuple(statistics.fmean(column) for column in zip(*of_trial, strict=True))


@dataclass(frozen=True)
class Choice:
    """What the confirmation of a row's search decided: the finalist, None before any trial was confirmed, and the ends
    of the front; with the scores that it was made from.
    """

    finalist: int | None
    ends: Mapping[str, int]
    found: Found
    preference: Preference
    row: str = ""

    @classmethod
    def of(cls, record: Record, objectives: Objectives, preference: Preference, row: str = "") -> Self:
        """From what is on record."""
        found = scores(record, objectives, row)
        finalist = chosen(found, preference)
        return cls(finalist, ends(found, finalist, objectives), found, preference, row)


def ends(found: Found, finalist: int | None, objectives: Objectives) -> dict[str, int]:
    """The ends of the front: of every objective the confirmed trial that has most of it, by the objective's name, where
    it leads the finalist by more than the error and is not the defaults.
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
