"""What a sweep works with: opened and in agreement before its first job, or refused, and nothing left behind."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from optuna.distributions import BaseDistribution

from ltsd.data import Splits, load_splits
from ltsd.errors import UserError
from ltsd.evaluation.exam import check_classes
from sweeps.journal.bucket import UnreachableError
from sweeps.journal.exchange import Exchange
from sweeps.journal.record import Record, open_mended
from sweeps.machines import environment as ray_environment
from sweeps.machines.machine import Machines
from sweeps.machines.sharing import share_out
from sweeps.results import report
from sweeps.results.knowledge import points_known
from sweeps.results.note import note
from sweeps.results.progress import Progress
from sweeps.settings.flags import AUTO, Settings
from sweeps.settings.sweep import Sweep
from sweeps.study.database import study_storage_of
from sweeps.study.export import StudyExport
from sweeps.study.search import Search
from sweeps.study.searcher import Study
from sweeps.study.space import published_defaults, sweep_space
from sweeps.tracking import environment as mlflow_environment
from sweeps.tracking.tracker import Tracker
from sweeps.tracking.view import MlflowView
from sweeps.worker.teachers import settle_teachers


@dataclass(frozen=True)
class Parts:
    """What a sweep works with, opened and in agreement."""

    sweep: Sweep
    splits: Splits
    machines: Machines
    exchange: Exchange
    record: Record
    searches: tuple[Search, ...]
    export: StudyExport
    tracker: Tracker
    progress: Progress


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


def opened(sweep: Sweep, splits: Splits, machines: Machines, exchange: Exchange, progress: Progress) -> Parts:
    """Tell what is about to happen, and open all that it happens with.

    Raises:
        UserError: something cannot be opened; nothing is left behind of a new sweep.
    """
    with leaving_nothing(sweep):
        ratio = splits.imbalance_ratio
        spaces = {row: sweep_space(sweep, ratio, row) for row in sweep.searched}
        knobs = {row: list(space) for row, space in spaces.items()}
        if sweep.is_new:
            space = spaces[""]
            sweep = replace(sweep, points=points_known(sweep, space, published_defaults(sweep.base, ratio, space)))
        sweep.keep()
        of_ray, of_mlflow = ray_environment.told(joins=bool(sweep.settings.ray_address)), mlflow_environment.told()
        for line in (*report.introduction(sweep, splits, machines, knobs), *of_ray, *of_mlflow):
            progress.say(line)
        ray_environment.quiet()
        record, mended = open_mended(sweep.settings.folder, exchange)
        if mended:
            progress.say(mended)
        settle_teachers(record, exchange)
        tracker = Tracker(MlflowView.of(sweep, splits, knobs), sweep.settings.tracking_uri, progress.say)
        start = partial(start_machines, sweep, machines, splits, exchange, progress)
        with starting(sweep, tracker, record, machines, start):
            searches = tuple(search_of(sweep, row, record, space, ratio) for row, space in spaces.items())
            studies = [search.study for search in searches]
            export = StudyExport(studies, [study_storage_of(sweep, row) for row in spaces], progress.say)
            if sweep.is_new:
                export.begin()
        tracker.describe(note(sweep))
        export.open()
    return Parts(sweep, splits, machines, exchange, record, searches, export, tracker, progress)


@contextlib.contextmanager
def leaving_nothing(sweep: Sweep) -> Iterator[None]:
    """Inside a new sweep may be refused, or interrupted: then nothing of it is left behind."""
    try:
        try:
            yield
        except UnreachableError as error:
            raise UserError(
                f"--shared {error}; see to it that it answers and that the login may list, read, write and delete there"
            ) from error
    except BaseException:
        if sweep.is_new:
            remove(sweep)
        raise


def remove(sweep: Sweep) -> None:
    """Take away the folder and the study of a sweep that never began."""
    for row in sweep.searched:
        study_storage_of(sweep, row).remove()
    shutil.rmtree(sweep.settings.folder, ignore_errors=True)


def withdraw(sweep: Sweep) -> None:
    """Leave nothing of a new sweep whose process died before its first job, and no run of another that runs."""
    view = MlflowView.of(sweep, load_splits(sweep.base.data), {})
    with contextlib.suppress(UserError):
        view.reach()
        view.withdraw() if sweep.is_new else view.end_runs()
    if sweep.is_new:
        remove(sweep)


def search_of(
    sweep: Sweep, row: str, record: Record, space: Mapping[str, BaseDistribution], imbalance_ratio: float
) -> Search:
    """The search of a row as the record has it; its first trial is the defaults, and of the sweep's own search the next
    are the points known before.
    """
    base = sweep.base_of(row)
    study = Study(record, base.seed, space, sweep.settings.maximised, sweep.settings.preference, row)
    if space and sweep.settings.trials:
        for point in (published_defaults(base, imbalance_ratio, space), *([] if row else sweep.points)):
            study.enqueue(point)
    return Search(base, sweep.tried_of(row), study)


def start_machines(sweep: Sweep, machines: Machines, splits: Splits, exchange: Exchange, progress: Progress) -> None:
    """Make the machines ready, and share out their GPUs where that is to be tried out."""
    machines.start(sweep.settings.folder, splits, exchange)
    if sweep.settings.gpus_per_trial == AUTO and machines.gpus_per_trial:
        share_out(machines, sweep.base, progress.say)


@contextlib.contextmanager
def starting(
    sweep: Sweep, tracker: Tracker, record: Record, machines: Machines, start: Callable[[], None]
) -> Iterator[None]:
    """Start MLflow and the machines beside what is done inside; where that fails, leave them as they were."""
    try:
        with ThreadPoolExecutor(2) as pool:
            answered = pool.submit(tracker.open, record)
            yield
            start()
            answered.result()
    except BaseException:
        machines.stop()
        if answered.exception() is None:
            tracker.refuse(is_new=sweep.is_new)
        raise
