"""Which of the best trials becomes the finalist: they are trained again on other seeds and scored on more images.

One score of one seed on a small validation set mostly ranks luck. The confirmation reads the reserve, which
has up to five times as many, and the mean over seeds decides.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from optuna.trial import FrozenTrial

from ltsd.config import Config
from sweeps.journal.exchange import Exchange
from sweeps.journal.jobs import Job, newest_checkpoint, rank
from sweeps.journal.record import Record

PREFIX = "confirm"
SCORE = f"{PREFIX}/robust_acc"
SEEDS = 3
DEFAULTS = 0


def candidates(complete: Sequence[FrozenTrial], count: int) -> list[FrozenTrial]:
    """The `count` best trials, and the defaults, where they were completed."""
    ranked = sorted(complete, key=lambda trial: -rank(trial.value))
    return ranked[:count] + [trial for trial in ranked[count:] if trial.number == DEFAULTS]


def confirmation_jobs(base: Config, trials: Sequence[FrozenTrial], folder: Path, exchange: Exchange) -> list[Job]:
    """Each candidate on `SEEDS` seeds; on the trial's own seed its last checkpoint is only scored again."""
    jobs = []
    for trial in trials:
        config = base.override(trial.params)
        own = Job("trial", f"trial-{trial.number:04d}", config, "train", str(folder))
        exchange.bring_checkpoint(own)
        for seed in range(base.seed, base.seed + SEEDS):
            start = newest_checkpoint(own) if seed == base.seed else None
            key = f"{PREFIX}-{trial.number:04d}-s{seed}"
            jobs.append(Job("confirm", key, replace(config, seed=seed), "train", str(folder), resume=str(start or "")))
    return jobs


def trial_of(job: Job) -> int:
    """The number of the trial that a confirmation belongs to."""
    return int(job.key.split("-")[1])


def scores(record: Record) -> dict[int, list[float]]:
    """The scores on the reserve so far, one a seed, by trial number; those that are no numbers are none."""
    found: dict[int, list[float]] = {}
    for known in record.of_kind("confirm"):
        if known.result is not None and math.isfinite(known.result.values[SCORE]):
            found.setdefault(trial_of(known.job), []).append(known.result.values[SCORE])
    return found


def chosen(found: Mapping[int, Sequence[float]]) -> int | None:
    """The trial with the highest mean score over all seeds, where one has them all; None before any was confirmed.

    The defaults, trial 0, give way only to a lead that is larger than its own standard error.
    """
    found = {number: scores for number, scores in found.items() if len(scores) == SEEDS} or found
    if not found:
        return None
    best = max(found, key=lambda number: statistics.fmean(found[number]))
    if DEFAULTS not in found or best == DEFAULTS:
        return best
    lead = statistics.fmean(found[best]) - statistics.fmean(found[DEFAULTS])
    noise = math.sqrt(sum(_squared_error(found[number]) for number in (best, DEFAULTS)))
    return best if lead > noise else DEFAULTS


def _squared_error(values: Sequence[float]) -> float:
    """The squared standard error of a mean, which one value tells nothing of."""
    return statistics.variance(values) / len(values) if len(values) > 1 else math.inf
