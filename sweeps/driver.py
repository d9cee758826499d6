"""A sweep from its settings to its table: the order in which everything happens."""

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType

# Ray reads its environment when it is imported: quiet, without telemetry, and with a token, so that on a machine whose
# ports others can reach nobody commands it who does not know that.
os.environ |= {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",
    "TUNE_WARN_THRESHOLD_S": "10",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
os.environ.setdefault("RAY_AUTH_MODE", "token")

import torch
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError

from ltsd.data import Splits, load_splits
from ltsd.errors import UserError
from ltsd.exam import check_classes
from sweeps.dispatch.dispatcher import Dispatcher
from sweeps.dispatch.plan import Plan
from sweeps.dispatch.tuner import run_jobs
from sweeps.findings import confirm, finals, report
from sweeps.findings.finals import Exams
from sweeps.findings.pictures import draw_sweep
from sweeps.findings.progress import Progress
from sweeps.journal.exchange import Exchange, exchange_of
from sweeps.journal.record import Record, open_mended
from sweeps.journal.safekeeping import Safe
from sweeps.machines.cluster import Cluster
from sweeps.machines.machine import Machines, OwnMachine
from sweeps.machines.sharing import share_out
from sweeps.settings.flags import AUTO, Settings
from sweeps.settings.sweep import Sweep
from sweeps.study.database import check_stores, place_of_study
from sweeps.study.scheduler import rung_pruner, rungs
from sweeps.study.searcher import Study, first_line
from sweeps.study.space import published_defaults, search_space
from sweeps.tracking.tracker import Tracker
from sweeps.tracking.view import MlflowView
from sweeps.worker.teachers import TeacherStore, settle_teachers

INTERRUPTED = 130
PATIENCE_S = 60.0
PATIENCE_INTERRUPTED_S = 4.0


def run_sweep(sweep: Sweep) -> int:
    """Run or resume a sweep; returns its exit code: 0 done, 1 it failed, 130 interrupted.

    Raises:
        UserError: what was asked for cannot be; nothing is left behind of a new sweep.
    """
    torch.set_num_threads(1)
    check_stores(sweep.settings)
    exchange = exchange_of(sweep.settings)
    exchange.begin(sweep.settings, is_new=sweep.is_new)
    machines = Cluster(sweep.settings) if sweep.settings.ray_address else OwnMachine(sweep.settings)
    splits = load_splits(sweep.base.data, check=True)
    sweep = sweep.on(splits.fingerprint)
    check_attacks(sweep.settings, splits.train.num_classes)
    space = search_space(sweep.base, splits.imbalance_ratio, sweep.fixed)
    with sweep.claimed(), Progress() as progress:
        sweep.keep()
        for line in report.introduction(sweep, splits, machines, list(space)):
            progress.say(line)
        record, mended = open_mended(sweep.settings.folder, exchange)
        if mended:
            progress.say(mended)
        settle_teachers(record, exchange)
        tracker = Tracker(MlflowView.of(sweep, splits, list(space)), sweep.settings.tracking_uri, progress.say)
        start = partial(start_machines, sweep, machines, splits, exchange, progress)
        with starting(sweep, tracker, record, machines, start):
            study = open_study(sweep, record, space, splits, progress)
        safes = [Safe(exchange, sweep.settings.folder, progress.say)] if sweep.settings.shared else []
        plan = plan_of(sweep, record, study, splits, machines, exchange)
        compared_at = rungs(sweep.base.epochs, sweep.base.evaluate.every)
        dispatcher = Dispatcher(plan, record, study, compared_at, machines, exchange, (progress, tracker, *safes))
        progress.expect(sweep.settings.trials, lambda: plan.final_runs, len(study.finished()), study.best())
        code, patience = 1, PATIENCE_INTERRUPTED_S
        try:
            with interrupted_by_signals() as came:
                run_jobs(dispatcher, machines, exchange, came)
                code = halted(sweep, dispatcher.halted, progress) or conclude(sweep, record, study, tracker, progress)
            patience = PATIENCE_S
        except (OSError, StorageInternalError) as error:
            code = halted(sweep, first_line(error.__cause__ or error), progress)
        except KeyboardInterrupt:
            progress.say(f"interrupted; everything is saved. Go on with:\n  {report.resume_command(sweep)}")
            code = INTERRUPTED
        finally:
            machines.stop()
            tracker.close({0: "FINISHED", INTERRUPTED: "KILLED"}.get(code, "FAILED"), patience)
            for safe in safes:
                safe.close(PATIENCE_S if code == 0 else PATIENCE_INTERRUPTED_S)
    return code


def check_attacks(settings: Settings, num_classes: int) -> None:
    """See before anything is trained that the final attacks can be run on so many classes.

    Raises:
        UserError: one cannot.
    """
    asked = {"--final-attack": settings.final_attack} if settings.trials else {}
    asked |= {"--reference-attack": settings.reference_attack} if settings.rows else {}
    for flag, ensemble in asked.items():
        try:
            check_classes(ensemble, num_classes)
        except UserError as error:
            raise UserError(f"{flag} {ensemble}: {error}") from None


def plan_of(
    sweep: Sweep,
    record: Record,
    study: Study,
    splits: Splits,
    machines: Machines,
    exchange: Exchange,
) -> Plan:
    """The jobs that the sweep's settings ask for, less those that are on record."""
    settings, base = sweep.settings, sweep.base
    return Plan(
        base,
        record,
        study,
        TeacherStore(Path(settings.storage), splits),
        settings.folder.absolute(),
        trials=settings.trials,
        confirmed=settings.confirm,
        exams=Exams(settings.final_seeds, settings.final_attack, settings.reference_attack, settings.rows),
        machines=machines,
        exchange=exchange,
    )


def open_study(
    sweep: Sweep, record: Record, space: Mapping[str, BaseDistribution], splits: Splits, progress: Progress
) -> Study:
    """The sweep's study, in line with the record, with the defaults as its first trial."""
    place = place_of_study(sweep, progress.say)
    study, repaired = Study.agreeing(record, place, sweep.base.seed, space, rung_pruner())
    if repaired:
        progress.say(repaired)
    if space and sweep.settings.trials:
        study.enqueue(published_defaults(sweep.base, splits.imbalance_ratio, space))
    return study


def start_machines(sweep: Sweep, machines: Machines, splits: Splits, exchange: Exchange, progress: Progress) -> None:
    """Make the machines ready, and share out their GPUs where that is to be tried out."""
    machines.start(sweep.settings.folder, splits, exchange)
    if sweep.settings.gpus_per_trial == AUTO and machines.gpus_per_trial:
        share_out(machines, sweep.base, progress.say)


@contextlib.contextmanager
def starting(
    sweep: Sweep, tracker: Tracker, record: Record, machines: Machines, start: Callable[[], None]
) -> Iterator[None]:
    """Start MLflow and the machines beside what is done inside; where that fails, leave nothing of a new sweep."""
    try:
        with ThreadPoolExecutor(2) as pool:
            opened = pool.submit(tracker.open, record)
            yield
            start()
            opened.result()
    except UserError:
        machines.stop()
        if opened.exception() is None:
            tracker.refuse(is_new=sweep.is_new)
        if sweep.is_new:
            place_of_study(sweep).remove()
            shutil.rmtree(sweep.settings.folder, ignore_errors=True)
        raise


def halted(sweep: Sweep, why: str, progress: Progress) -> int:
    """Tell why the sweep cannot go on as it is; returns 1, or 0 where there is no reason."""
    if why:
        progress.say(f"halted: {why}\neverything acknowledged is saved. Mend that, then go on with:")
        progress.say(f"  {report.resume_command(sweep)}")
    return 1 if why else 0


def conclude(sweep: Sweep, record: Record, study: Study, tracker: Tracker, progress: Progress) -> int:
    """The table, the pictures and the way into MLflow; returns 1 where there is no finalist to show."""
    settings, folder = sweep.settings, sweep.settings.folder
    chosen = confirm.chosen(confirm.scores(record))
    results = finals.results(record, chosen, settings.rows)
    led = report.leads(results)
    tables = [*report.accuracies(sweep, results, finals.COLUMNS), *led]
    note = [report.choice(record)] if settings.trials else []
    paths = [*draw_sweep(study.optuna, results, folder), finals.write_table([*tables, *note], folder)]
    tracker.finish(report.metrics(record, study, results), paths, finals.finalist_model(record, chosen))
    for line in report.conclusion(sweep, record, study, results, led, paths):
        progress.say(line)
    return 0 if finals.are_in(results, settings.trials) else 1


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[list[int]]:
    """Inside, SIGTERM interrupts as Ctrl-C does; a second signal of either kind ends the process at once.

    Yields:
        The signals that came: an interrupt that is raised in the middle of a library's callback may be lost there.
    """
    came: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
