"""A sweep from its settings to its table: the order in which everything happens."""

import contextlib
import logging
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

# Ray reads its environment when it is imported: quiet, without telemetry, and with a token, so that on a machine whose
# ports others can reach nobody but this process commands it.
os.environ |= {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "TUNE_WARN_THRESHOLD_S": "10",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

import ray
import torch
from ray import tune
from ray.tune.experiment import Trial

from ltsd.data import load_splits
from ltsd.errors import UserError
from sweeps import confirm, finals, report
from sweeps.finals import Exams
from sweeps.machine import Resources, plan_resources
from sweeps.outbox import Tracker
from sweeps.pictures import draw_sweep
from sweeps.plan import Plan
from sweeps.progress import Progress
from sweeps.record import Record, fill_from_checkpoint
from sweeps.scheduler import RungScheduler, rung_pruner, rungs
from sweeps.searcher import Study
from sweeps.settings import JOURNAL_FILE, Sweep
from sweeps.space import published_defaults, search_space
from sweeps.supervisor import BeginAgainError
from sweeps.teachers import TeacherStore
from sweeps.tracking import MlflowView
from sweeps.trial import run_job

PATIENCE_S = 60.0
LOOK_AT_RAY_EVERY_S = 5.0
PATIENCE_INTERRUPTED_S = 4.0


def run_sweep(sweep: Sweep) -> int:
    """Run or resume a sweep; returns its exit code: 0 done, 1 it failed, 130 interrupted.

    Raises:
        UserError: what was asked for cannot be; nothing is left behind of a new sweep.
    """
    settings, base = sweep.settings, sweep.base
    torch.set_num_threads(1)
    resources = plan_resources(settings)
    splits = load_splits(base.data, check=True)
    space = search_space(base, splits.imbalance_ratio, sweep.fixed)
    folder, name = settings.folder.absolute(), str(settings.name)
    with sweep.claimed(), Progress() as progress:
        sweep.keep()
        for line in report.introduction(sweep, splits, resources, list(space)):
            progress.say(line)
        view = MlflowView(settings.tracking_uri, name, base, splits, list(space))
        tracker = Tracker(view, settings.tracking_uri, progress.say)
        record = open_record(folder, progress)
        with starting(sweep, tracker, record, resources):
            study, repaired = Study.agreeing(record, folder, base.seed, space, rung_pruner())
        if repaired:
            progress.say(repaired)
        if space:
            study.enqueue(published_defaults(base, splits.imbalance_ratio, space))
        plan = Plan(
            base,
            record,
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
        status, patience = "KILLED", PATIENCE_INTERRUPTED_S
        try:
            with interrupted_by_signals():
                run_jobs(plan, resources)
                code = conclude(sweep, record, study, plan, tracker, progress)
            status, patience = ("FINISHED" if code == 0 else "FAILED"), PATIENCE_S
        except KeyboardInterrupt:
            progress.say(f"interrupted; everything is saved. Go on with:\n  {report.resume_command(sweep)}")
            code = 130
        finally:
            ray.shutdown()
            tracker.close(status, patience)
    return code


def open_record(folder: Path, progress: Progress) -> Record:
    """The sweep's record; what a damaged journal lost of it is taken from the checkpoints that have it."""
    record = Record.open(folder)
    if record.damaged:
        for known in record.jobs.values():
            fill_from_checkpoint(record, known.job)
        lines = ", ".join(map(str, record.damaged))
        progress.say(f"{folder / JOURNAL_FILE} was damaged in line {lines}: what it lost is taken from checkpoints")
    return record


@contextlib.contextmanager
def starting(sweep: Sweep, tracker: Tracker, record: Record, resources: Resources) -> Iterator[None]:
    """Start MLflow and Ray beside what is done inside; where that fails, leave nothing of a new sweep."""
    try:
        with ThreadPoolExecutor(2) as pool:
            opened = pool.submit(tracker.open, record)
            yield
            start_ray(resources)
            opened.result()
    except UserError:
        ray.shutdown()
        if sweep.is_new:
            shutil.rmtree(sweep.settings.folder, ignore_errors=True)
        raise


def start_ray(resources: Resources) -> None:
    """A Ray of this process alone; only who knows its token may talk to it. The live view tells of dead workers."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    ray.init(
        num_cpus=resources.cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
    )


def run_jobs(plan: Plan, resources: Resources) -> None:
    """Have Ray Tune run what the plan gives until it gives no more.

    Nothing of Ray's own files is kept: the sweep's journal and checkpoints are the record. A worker that dies is
    replaced; the plan counts how often.
    """
    gpus = resources.gpus_per_trial
    trainable = tune.with_parameters(run_job, gpu_fraction=gpus)
    with tempfile.TemporaryDirectory(prefix="ltsd-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1, "gpu": gpus}),
            tune_config=tune.TuneConfig(
                search_alg=plan,
                scheduler=RungScheduler(plan.reported),
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.config["job.key"]),
            ),
            run_config=tune.RunConfig(
                name="jobs",
                storage_path=scratch,
                verbose=0,
                callbacks=[RayWatch()],
                failure_config=tune.FailureConfig(max_failures=-1),
            ),
        )
        tuner.fit()


class RayWatch(tune.Callback):
    """Sees that Ray still has a node: without one Tune would wait for ever for another."""

    def __init__(self) -> None:
        self._looked = time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Called by Ray Tune in each turn of its loop.

        Raises:
            BeginAgainError: the node is dead.
        """
        if time.monotonic() - self._looked > LOOK_AT_RAY_EVERY_S:
            self._looked = time.monotonic()
            if not any(node["Alive"] for node in ray.nodes()):  # type: ignore[no-untyped-call]
                raise BeginAgainError


def conclude(sweep: Sweep, record: Record, study: Study, plan: Plan, tracker: Tracker, progress: Progress) -> int:
    """The table, the pictures and the way into MLflow; 1 where the sweep halted or there is no finalist to show."""
    if plan.halted:
        progress.say(f"halted: {plan.halted}\nall that was acknowledged is saved. Mend that, then go on with:")
        progress.say(f"  {report.resume_command(sweep)}")
        return 1
    folder = sweep.settings.folder
    chosen = confirm.chosen(confirm.scores(record))
    results = finals.results(record, chosen)
    paths = [*draw_sweep(study.optuna, results, folder), finals.write_table(results, folder, report.choice(record))]
    tracker.finish(report.metrics(record, study, results), paths, finals.finalist_model(record, chosen))
    for line in report.conclusion(sweep, record, study, results, paths):
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
