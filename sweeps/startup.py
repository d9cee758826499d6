"""Open the resources of a sweep and make them consistent; if this fails, leave nothing of a new sweep behind."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from optuna.distributions import BaseDistribution

from ltsd.data import Splits, load_splits
from ltsd.data.batches import Split
from ltsd.errors import UserError
from ltsd.tasks import check_task
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
from sweeps.settings.flags import AUTO
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
    """The resources of a sweep, open and consistent."""

    sweep: Sweep
    splits: Splits
    machines: Machines
    exchange: Exchange
    record: Record
    searches: tuple[Search, ...]
    export: StudyExport
    tracker: Tracker
    progress: Progress


def check_runs(sweep: Sweep, data: Split) -> str:
    """Check, before anything is trained, that every row fits the data, and that the final attacks support the number of
    classes; return the message about the initial weights, which is the same for all rows.

    Raises:
        UserError: a row or an attack does not fit.
    """
    told = [check_task(sweep.base_of(row), data) for row in ("", *sweep.rows)]
    finalist, reference = sweep.attacks
    asked = {"--final-attack": finalist} if sweep.settings.trials else {}
    asked |= {"--reference-attack": reference} if sweep.rows else {}
    for flag, ensemble in asked.items():
        try:
            sweep.exam.check(ensemble, data.num_classes)
        except UserError as error:
            raise UserError(f"{flag} {ensemble}: {error}") from None
    return told[0]


def opened(sweep: Sweep, splits: Splits, machines: Machines, exchange: Exchange, progress: Progress) -> Parts:
    """Report what the sweep will do, and open its resources.

    Raises:
        UserError: something cannot be opened; nothing of a new sweep is left behind.
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
    """Clean up if startup of a new sweep fails or is interrupted."""
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
    """Remove the folder and the studies of a sweep that never started."""
    for row in sweep.searched:
        study_storage_of(sweep, row).remove()
    shutil.rmtree(sweep.settings.folder, ignore_errors=True)


def withdraw(sweep: Sweep) -> None:
    """Clean up after the process of a sweep died before its first job: remove a new sweep; of a resumed one, end the
    MLflow runs that are still RUNNING.
    """
    view = MlflowView.of(sweep, load_splits(sweep.base.data), {})
    with contextlib.suppress(UserError):
        view.reach()
        view.withdraw() if sweep.is_new else view.end_runs()
    if sweep.is_new:
        remove(sweep)


def search_of(
    sweep: Sweep, row: str, record: Record, space: Mapping[str, BaseDistribution], imbalance_ratio: float
) -> Search:
    """Open the search of a row from the record. Its first trial has the defaults; in the sweep's own search, the points
    of `--start-from` come next.
    """
    base = sweep.base_of(row)
    study = Study(record, base.seed, space, sweep.objectives, sweep.settings.preference, row)
    if space and sweep.settings.trials:
        for point in (published_defaults(base, imbalance_ratio, space), *([] if row else sweep.points)):
            study.enqueue(point)
    return Search(base, sweep.tried_of(row), study)


def start_machines(sweep: Sweep, machines: Machines, splits: Splits, exchange: Exchange, progress: Progress) -> None:
    """Start the machines; with `--gpus-per-trial auto`, measure how many trials should share a GPU."""
    machines.start(sweep.settings.folder, splits, exchange)
    if sweep.settings.gpus_per_trial == AUTO and machines.gpus_per_trial:
        share_out(machines, sweep.base, progress.say)


@contextlib.contextmanager
def starting(
    sweep: Sweep, tracker: Tracker, record: Record, machines: Machines, start: Callable[[], None]
) -> Iterator[None]:
    """Start MLflow and the machines while the body runs; if anything fails, leave them as they were."""
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
