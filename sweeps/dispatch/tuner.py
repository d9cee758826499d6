"""Run the jobs of a sweep with Ray Tune, and watch for signals and dead nodes."""

import logging
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback

from sweeps.dispatch.dispatcher import Dispatcher
from sweeps.journal.exchange import Exchange
from sweeps.journal.jobs import Job
from sweeps.machines.machine import Machines, processors
from sweeps.machines.supervisor import BeginAgainError
from sweeps.study.scheduler import RungScheduler
from sweeps.worker.trial import run_job

LOOK_AT_RAY_EVERY_S = 5.0


def run_jobs(dispatcher: Dispatcher, machines: Machines, exchange: Exchange, signals: Sequence[int]) -> None:
    """Let Ray Tune run the dispatcher's jobs until there are no more, or one of `signals` comes.

    Ray's files are temporary: the journal and the checkpoints are the record. A worker that dies is replaced; the
    dispatcher counts how often.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    gpus = machines.gpus_per_trial
    trainable = tune.with_parameters(run_job, gpu_fraction=gpus, shipment=machines.shipment, exchange=exchange)
    with tempfile.TemporaryDirectory(prefix="ltsd-tune-", dir=machines.scratch) as scratch:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": processors(gpus), "gpu": gpus}),
            tune_config=tune.TuneConfig(
                search_alg=dispatcher,
                scheduler=RungScheduler(dispatcher.reported, dispatcher.died, machines.workers_kept),
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: Job.of(trial.config).title,
            ),
            run_config=tune.RunConfig(
                name="jobs",
                storage_path=scratch,
                verbose=0,
                callbacks=[Watch(signals)],
                failure_config=tune.FailureConfig(max_failures=-1),
            ),
        )
        tuner.fit()


class Watch(TrialProgressCallback):
    """Checks that Ray still has a node, since Tune would wait for another one forever, and that no signal was lost.

    It replaces Tune's reporter, which prints a line for each finished job at every level of verbosity.
    """

    def __init__(self, signals: Sequence[int]) -> None:
        super().__init__()
        self._signals = signals
        self._looked = time.monotonic()

    def on_trial_result(self, *args: Any, **info: Any) -> None:
        """Do nothing: the live view shows it."""

    def on_trial_error(self, *args: Any, **info: Any) -> None:
        """Do nothing: the dispatcher counts it."""

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Free the data that Ray Tune keeps of a finished job; nothing reads it."""
        run = trial.run_metadata
        for kept in (trial.config, trial.evaluated_params, run.metric_analysis, run.metric_n_steps, run.last_result):
            kept.clear()
        trial.last_result.clear()  # without a last result, this is the metadata that the worker sent at its start
        trial.experiment_tag = ""

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Check node and signals in each turn of Tune's loop.

        Raises:
            KeyboardInterrupt: a signal came.
            BeginAgainError: the node is dead.
        """
        if self._signals:
            raise KeyboardInterrupt
        if time.monotonic() - self._looked > LOOK_AT_RAY_EVERY_S:
            self._looked = time.monotonic()
            if not any(node["Alive"] for node in ray.nodes()):  # type: ignore[no-untyped-call]
                raise BeginAgainError
