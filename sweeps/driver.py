"""A sweep from its settings to its table, in order."""

import contextlib
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch

from ltsd.data import load_splits
from ltsd.output import CLOSED
from sweeps.dispatch.dispatcher import Dispatcher, Listener
from sweeps.dispatch.plan import Plan
from sweeps.dispatch.tuner import run_jobs
from sweeps.journal.exchange import exchange_of
from sweeps.journal.journal_backup import Safe
from sweeps.machines.cluster import Cluster
from sweeps.machines.machine import OwnMachine
from sweeps.results import finals, report
from sweeps.results.cards import write_cards
from sweeps.results.confirm import Choice
from sweeps.results.html import Found, write_report
from sweeps.results.note import GrowingNote, note
from sweeps.results.pictures import draw_sweep
from sweeps.results.progress import Progress
from sweeps.settings.sweep import Sweep
from sweeps.startup import Parts, check_runs, opened
from sweeps.study.database import check_stores
from sweeps.study.scheduler import rungs
from sweeps.worker.teachers import TeacherStore

INTERRUPTED = 130
PATIENCE_S = 60.0
PATIENCE_INTERRUPTED_S = 4.0


def run_sweep(sweep: Sweep) -> int:
    """Run or resume a sweep.

    Returns:
        The exit code: 0 done, 1 failed, 130 interrupted, 141 the output was closed.

    Raises:
        UserError: the request cannot be met; nothing of a new sweep is left behind.
    """
    torch.set_num_threads(1)
    check_stores(sweep.settings)
    exchange = exchange_of(sweep.settings)
    exchange.begin(sweep.settings, is_new=sweep.is_new)
    machines = Cluster(sweep.settings) if sweep.settings.ray_address else OwnMachine(sweep.settings)
    splits = load_splits(sweep.base.data, check=True)
    sweep = replace(sweep.on(splits.fingerprint), num_classes=splits.train.num_classes)
    weights = check_runs(sweep, splits.train)
    with sweep.claimed(), Progress() as progress, interrupted_by_signals(progress.asked):
        if weights:
            progress.say(weights)
        try:
            parts = opened(sweep, splits, machines, exchange, progress)
        except KeyboardInterrupt:
            return interrupted(progress, "interrupted before it began")
        return run(parts)


def run(parts: Parts) -> int:
    """Run the jobs of a sweep and conclude it, unless a signal ends it; return the exit code."""
    sweep, machines, exchange, tracker = parts.sweep, parts.machines, parts.exchange, parts.tracker
    record, export, progress = parts.record, parts.export, parts.progress
    safes = [Safe(exchange, sweep.settings.folder, progress.say)] if sweep.settings.shared else []
    code, patience = 1, PATIENCE_INTERRUPTED_S
    try:
        store = TeacherStore(Path(sweep.settings.storage), parts.splits)
        plan = Plan(sweep, parts.searches, record, store, machines, exchange)
        compared_at = rungs(sweep.base.epochs, sweep.base.evaluate.every)
        studies = [search.study for search in parts.searches]
        growing = GrowingNote(sweep, record, studies, tracker.describe)
        listeners: Sequence[Listener] = (progress, tracker, growing, export, *safes)
        dispatcher = Dispatcher(plan, record, studies, compared_at, machines, exchange, listeners)
        progress.expect(sweep.settings.trials, lambda: plan.final_runs, studies)
        with interrupted_by_signals(progress.asked):  # again, because Ray has replaced the handlers
            run_jobs(dispatcher, machines, exchange, progress.asked)
            code = halted(sweep, dispatcher.halted, progress) or conclude(parts)
        patience = PATIENCE_S
    except OSError as error:
        code = halted(sweep, str(error), progress)
    except KeyboardInterrupt:
        code = interrupted(progress, f"interrupted; everything is saved. Go on with:\n  {report.resume_command(sweep)}")
    finally:
        machines.stop()
        tracker.close({0: "FINISHED", INTERRUPTED: "KILLED", CLOSED: "KILLED"}.get(code, "FAILED"), patience)
        export.close(PATIENCE_S if code == 0 else PATIENCE_INTERRUPTED_S)
        for safe in safes:
            safe.close(PATIENCE_S if code == 0 else PATIENCE_INTERRUPTED_S)
    return CLOSED if code == 0 and progress.asked else code


def interrupted(progress: Progress, told: str) -> int:
    """Report that a signal ended the sweep; return its exit code, or CLOSED if the signal was a closed output."""
    code = CLOSED if progress.asked[:1] == [signal.SIGPIPE] else INTERRUPTED
    progress.say(told)
    return code


def halted(sweep: Sweep, why: str, progress: Progress) -> int:
    """Report why the sweep cannot continue as it is; return 1, or 0 if there is no reason."""
    if why:
        progress.say(f"halted: {why}\neverything acknowledged is saved. Mend that, then go on with:")
        progress.say(f"  {report.resume_command(sweep)}")
    return 1 if why else 0


def conclude(parts: Parts) -> int:
    """Show the table, the pictures and the way to MLflow; return 1 if there is no finalist."""
    sweep, record, studies = parts.sweep, parts.record, [search.study for search in parts.searches]
    settings, folder = sweep.settings, sweep.settings.folder
    choices = [Choice.of(record, study.objectives, settings.preference, study.row) for study in studies]
    results = finals.results(record, choices, sweep.rows)
    led = report.leads(results, sweep.exam)
    searched = report.fronts(studies, choices) if settings.trials else []
    tables = [*report.accuracies(sweep, results, sweep.exam.columns, parts.splits.finalists), *led, *searched]
    found = Found(
        sweep=sweep,
        record=record,
        studies=studies if settings.trials else [],
        choices=choices if settings.trials else [],
        results=results,
        class_names=parts.splits.class_names,
        link=lambda key: report.address(sweep, parts.tracker.page(key)),
    )
    paths = [*draw_sweep(studies[0], choices[0], results, sweep.exam, folder), finals.write_table(tables, folder)]
    paths += written_report(found, parts.progress)
    write_cards(record, choices[0], parts.splits)
    numbers = report.metrics(record, studies[0], choices[0], results, sweep.exam)
    parts.tracker.finish(numbers, paths, finals.finalist_model(record, choices[0]))
    parts.tracker.describe(note(sweep, "\n".join(tables)))
    for line in report.conclusion(sweep, parts.splits, record, studies, choices, results, [*searched, *led], paths):
        parts.progress.say(line)
    parts.progress.say(report.way_to_mlflow(sweep, parts.tracker.page()))
    return 0 if finals.are_in(results, settings.trials) else 1


def written_report(found: Found, progress: Progress) -> list[Path]:
    """Write the report; return its path, or nothing if it cannot be drawn: every number is on record without it."""
    try:
        return [write_report(found)]
    except OSError:
        raise
    except Exception as error:
        progress.say(f"there is no report.html: {type(error).__name__}: {error}")
        return []


@contextlib.contextmanager
def interrupted_by_signals(came: list[int]) -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does; a second signal of either kind ends the process at once.

    Args:
        came: receives the signals, since a KeyboardInterrupt that is raised inside a library's callback may be lost.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
