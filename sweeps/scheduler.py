"""The rungs: at which epochs a trial is compared with the others, and what Ray is told of it."""

from collections.abc import Callable
from typing import Any

from optuna.pruners import BasePruner, MedianPruner
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from sweeps.jobs import REPORT, Report

RUNG_FRACTIONS = (0.6, 0.75)
WARM_TRIALS = 4


def rungs(epochs: int, every: int) -> list[int]:
    """The validated epochs nearest above the rung fractions, below the last epoch.

    Early rungs are no preview: see benchmarks/results/rungs.md, which measures the rank correlation of the
    score at each epoch with the final score.
    """
    validated = range(every, epochs, every)
    found = {next((e for e in validated if e >= part * epochs), 0) for part in RUNG_FRACTIONS}
    return sorted(found - {0})


def rung_pruner() -> BasePruner:
    """At a rung, stop what is below the median of the earlier trials there, once there are a few."""
    return MedianPruner(n_startup_trials=WARM_TRIALS, n_warmup_steps=0)


class Beginnings(Callback):
    """Tells `begun` which trial a worker takes up."""

    def __init__(self, begun: Callable[[str], None]) -> None:
        self._begun = begun

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Called by Ray when a worker has a trial."""
        self._begun(trial.trial_id)


class RungScheduler(FIFOScheduler):
    """First come, first served; passes each report to `record`, which says whether the trial goes on."""

    def __init__(self, record: Callable[[str, Report], bool]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._record = record

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Called by Ray for every report, before anything else hears of it."""
        goes_on = self._record(trial.trial_id, result[REPORT])
        return self.CONTINUE if goes_on else self.STOP
