"""The rungs: the epochs at which trials are compared, and the Ray scheduler that stops trials there."""

from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from sweeps.journal.jobs import REPORT, Report

RUNG_FRACTIONS = (0.6, 0.75)
OVER = (Trial.TERMINATED, Trial.ERROR)


def rungs(epochs: int, every: int) -> list[int]:
    """Return the validated epochs nearest above the rung fractions, below the last epoch.

    There are no early rungs, because early scores do not predict the final ones: benchmarks/results/rungs.md measures
    the rank correlation of the score at each epoch with the final score.
    """
    validated = range(every, epochs, every)
    found = {next((e for e in validated if e >= part * epochs), 0) for part in RUNG_FRACTIONS}
    return sorted(found - {0})


class RungScheduler(FIFOScheduler):
    """Runs trials first come, first served. It passes each report to `reported`, which decides whether the trial
    continues, and each death of a worker to `died`, which decides whether the trial gets another worker.

    `kept` is the number of idle workers to keep besides the one that Ray keeps: a new worker needs seconds for imports.
    """

    def __init__(self, reported: Callable[[str, Report], bool], died: Callable[[str], bool], kept: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reported, self._died, self._kept = reported, died, kept
        self._live: list[Trial] = []

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Called by Ray for a new job, and again after its worker died."""
        if self._kept:
            tune_controller._actor_cache.increase_max(trial.placement_group_factory, by=self._kept)
            self._kept = 0
        is_again = trial in self._live
        self._live = [one for one in self._live if one is not trial and one.status not in OVER] + [trial]
        if is_again and not self._died(trial.trial_id):
            tune_controller.stop_trial(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Called by Ray at every event: return the trial that has waited longest. Ray's own scheduler searches all
        trials ever made.
        """
        return next((trial for trial in self._live if trial.status == Trial.PENDING), None)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Called by Ray for every report, before anything else."""
        goes_on = self._reported(trial.trial_id, result[REPORT])
        return self.CONTINUE if goes_on else self.STOP
