"""A sweep from its settings to its table: the order in which everything happens."""

import contextlib
import logging
import os
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

# Ray reads its environment when it is imported: quiet, without telemetry, and with a token, so that on a machine whose
# ports others can reach nobody but this process commands it.
os.environ |= {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "TUNE_WARN_THRESHOLD_S": "10",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

import ray
import torch
from ray import tune

from ltsd.data import load_splits
from ltsd.errors import UserError
from sweeps import finals, report
from sweeps.finals import Exams
from sweeps.machine import Resources, plan_resources
from sweeps.pictures import draw_sweep
from sweeps.plan import Plan
from sweeps.progress import Progress
from sweeps.scheduler import Beginnings, RungScheduler, rung_pruner, rungs
from sweeps.searcher import Study
from sweeps.settings import Sweep
from sweeps.space import published_defaults, search_space
from sweeps.teachers import TeacherStore
from sweeps.tracking import Tracker
from sweeps.trial import run_job

RETRIES = 2


def run_sweep(sweep: Sweep) -> int:
    """Run or resume a sweep; returns its exit code: 0 done, 1 it failed, 130 interrupted.

    Raises:
        UserError: what was asked for cannot be; nothing is left behind of a new sweep.
    """
    settings, base = sweep.settings, sweep.base
    torch.set_num_threads(1)
    resources = plan_resources(settings)
    splits = load_splits(base.data)
    space = search_space(base, splits.imbalance_ratio, sweep.fixed)
    sweep.claim()
    folder = settings.folder.absolute()
    with Progress() as progress:
        for line in report.introduction(sweep, splits, resources, list(space)):
            progress.say(line)
        tracker = Tracker(settings.tracking_uri, str(settings.name), base, splits, list(space), folder, progress.say)
        with starting(sweep, tracker, resources):
            study = Study(folder, base.seed, space, rung_pruner())
        if space:
            study.enqueue(published_defaults(base, splits.imbalance_ratio, space))
        plan = Plan(
            base,
            study,
            TeacherStore(Path(settings.storage), splits),
            folder,
            trials=settings.trials,
            confirmed=settings.confirm,
            rungs=rungs(base.epochs, base.evaluate.every),
            exams=Exams(settings.final_seeds, settings.final_attack, settings.reference_attack),
            concurrency=resources.concurrency,
            listeners=(progress, tracker),
        )
        progress.expect(settings.trials, lambda: plan.final_runs, finished=len(study.finished()))
        status = "KILLED"
        try:
            with interrupted_by_signals():
                run_jobs(plan, resources, folder)
            code = conclude(sweep, study, plan, tracker, progress)
            status = "FINISHED" if code == 0 else "FAILED"
        except KeyboardInterrupt:
            progress.say(f"interrupted; everything is saved. Go on with:\n  {report.resume_command(sweep)}")
            code = 130
        finally:
            ray.shutdown()
            tracker.close(status)
    return code


@contextlib.contextmanager
def starting(sweep: Sweep, tracker: Tracker, resources: Resources) -> Iterator[None]:
    """Start MLflow and Ray beside what is done inside; where that fails, leave nothing of a new sweep."""
    try:
        with ThreadPoolExecutor(2) as pool:
            opened = pool.submit(tracker.open)
            yield
            start_ray(resources)
            opened.result()
    except UserError:
        ray.shutdown()
        if sweep.is_new:
            shutil.rmtree(sweep.settings.folder, ignore_errors=True)
        raise


def start_ray(resources: Resources) -> None:
    """A Ray of this process alone; only who knows its token may talk to it."""
    ray.init(
        num_cpus=resources.cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
    )


def run_jobs(plan: Plan, resources: Resources, folder: Path) -> None:
    """Have Ray Tune run what the plan gives until it gives no more.

    Ray's own snapshot of the experiment is not used: the study and the sweep's folder are the record.
    """
    gpus = resources.gpus_per_trial
    trainable = tune.with_parameters(run_job, gpu_fraction=gpus)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1, "gpu": gpus}),
        tune_config=tune.TuneConfig(
            search_alg=plan,
            scheduler=RungScheduler(plan.record),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.config["job.key"]),
        ),
        run_config=tune.RunConfig(
            name=f"{time.time_ns()}",
            storage_path=str(folder / "ray"),
            verbose=0,
            callbacks=[Beginnings(plan.begun)],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2),
        ),
    )
    tuner.fit()


def conclude(sweep: Sweep, study: Study, plan: Plan, tracker: Tracker, progress: Progress) -> int:
    """The table, the pictures and the way into MLflow; 1 where there is no finalist to show."""
    folder = sweep.settings.folder
    results = finals.read_results(folder)
    paths = [*draw_sweep(study.optuna, results, folder), finals.write_table(results, folder, report.choice(folder))]
    tracker.finish(report.metrics(study, plan, results, folder), paths, plan.model_of_finalist())
    for line in report.conclusion(sweep, study, plan, results, paths):
        progress.say(line)
    return 0 if finals.FINALIST in results else 1


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Inside, SIGTERM interrupts as Ctrl-C does; a second signal of either kind ends the process at once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
