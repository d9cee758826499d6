"""The live view of a sweep: running jobs, their epochs, the best scores so far, the time left."""

import signal
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

from ltsd.config import Config
from ltsd.evaluation.exams import EXAMS
from ltsd.output import discard_output
from ltsd.tasks import metric
from sweeps.journal.jobs import Job, Report
from sweeps.journal.record import JobRecord
from sweeps.settings.groups import GROUPS, searched_knobs
from sweeps.study.searcher import Study

HEARTBEAT_S = 15.0
SCORES = ("val/robust", "val/tail_robust", "confirm/robust", "confirm/tail_robust")
"""The scores that are shown of a job if it has them, without the measure of the task. Its robust scores on the test set
are shown too.
"""


class Shown(Console):
    """A Rich console. When its output is closed, it prints nothing more and appends SIGPIPE to `asked`."""

    asked: list[int]

    def on_broken_pipe(self) -> None:
        """Called by Rich, in the thread that wrote."""
        self.asked.append(signal.SIGPIPE)
        discard_output()


class Progress:
    """A `Listener` that shows a sweep: a table that redraws itself in a terminal, lines of text in a file.

    The time left is estimated from the durations of finished jobs. `asked` collects the signals that ask the sweep to
    end; a closed output is one.
    """

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.console = Shown(highlight=False, soft_wrap=True)
        self.console.asked = self.asked
        self._trials = 0
        self._final_runs: Callable[[], int] = lambda: 0
        self._starting: Spinner | None = Spinner("line", "Ray and MLflow are starting")
        self._ended = {"trial": 0, "confirm": 0, "final": 0, "teacher": 0}
        self._running: dict[str, tuple[Job, Report | None, float]] = {}
        self._study: Study | None = None
        self._started = self._spoke = time.monotonic()
        self._seconds_of: dict[str, list[float]] = {"trial": [], "confirm": [], "final": [], "teacher": []}
        self._live = Live(console=self.console, refresh_per_second=2, transient=True, get_renderable=self._view)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def expect(self, trials: int, final_runs: Callable[[], int], studies: Sequence[Study]) -> None:
        """Set the expected work: `trials` trials of each study, including those it already has, and the final runs."""
        self._trials, self._final_runs = trials * len(studies), final_runs
        self._study, self._starting = studies[0], None
        self._ended["trial"] = sum(len(study.finished()) for study in studies)

    def say(self, text: str) -> None:
        """Print a line above the table in a terminal; in a file, with the time since the start."""
        self._spoke = time.monotonic()
        stamp = "" if self.console.is_terminal else f"[{_clock(self._spoke - self._started)}] "
        self.console.print(stamp + text, markup=False)

    def started(self, known: JobRecord) -> None:
        """See `Listener`."""
        job, since = known.job, known.last_epoch
        self._running[job.key] = (job, None, time.monotonic())
        if not self.console.is_terminal:
            self.say(f"{job.key} starts  {_summary(job)}" + (f" (goes on after epoch {since})" if since else ""))

    def reported(self, known: JobRecord, report: Report) -> None:
        """See `Listener`."""
        job = known.job
        self._running[job.key] = (job, report, self._running[job.key][2])
        if not self.console.is_terminal and time.monotonic() - self._spoke > HEARTBEAT_S:
            running = ", ".join(f"{key} {_where(*state[:2])}" for key, state in self._running.items())
            self.say(f"{self._headline()} | running: {running}")

    def ended(self, known: JobRecord) -> None:
        """See `Listener`."""
        job = known.job
        _, report, since = self._running.pop(job.key, (job, None, time.monotonic()))
        self._ended[job.kind] += 1
        self._seconds_of[job.kind].append(time.monotonic() - since)
        score = "" if report is None else _score(job, report)
        tail = "".join(f": {told}" for told in (known.reason, known.warning) if told)
        self.say(f"{job.key} {known.outcome}{tail}  {score}")

    def _headline(self) -> str:
        done = f"trials {self._ended['trial']}/{self._trials}"
        finals = f"finals {self._ended['final']}/{self._final_runs()}"
        left = self._seconds_left()
        eta = "" if left is None else f", about {_clock(left)} left"
        best = self._study.leaders_told() if self._study is not None else ""
        return f"{done}, {finals}, best {best or '–'}{eta}"

    def _seconds_left(self) -> float | None:
        trial = self._seconds_of["trial"]
        if not trial:
            return None
        per_trial = sum(trial) / len(trial)
        final = self._seconds_of["final"]
        per_final = sum(final) / len(final) if final else 2 * per_trial
        work = per_trial * (self._trials - self._ended["trial"])
        work += per_final * (self._final_runs() - self._ended["final"])
        running = sum(time.monotonic() - since for job, _, since in self._at_work() if job.kind in ("trial", "final"))
        return max(0.0, work - running) / max(1, len(self._running))

    def _at_work(self) -> list[tuple[Job, Report | None, float]]:
        """Return a copy: a thread draws the terminal."""
        return list(self._running.values())

    def _view(self) -> Group:
        return Group(self._starting or self._headline(), *([self._table()] if self._running else []))

    def _table(self) -> Table:
        table = Table()
        for column in ("job", "where", "score", "knobs"):
            table.add_column(column, no_wrap=column != "knobs")
        for job, report, _ in self._at_work():
            table.add_row(job.key, _where(job, report), "" if report is None else _score(job, report), _summary(job))
        return table


def _where(job: Job, report: Report | None) -> str:
    if report is None:
        return "starts"
    if report.phase == "train":
        return f"epoch {report.epoch}/{job.config.epochs}"
    return report.phase


def _score(job: Job, report: Report) -> str:
    exam = EXAMS[job.config.task]
    tested = [exam.columns[title] for pair in exam.robust for title in pair]
    names = [*(metric(job.config, score) for score in SCORES), *tested]
    return "  ".join(f"{name} {100 * report.values[name]:.1f}%" for name in names if name in report.values)


def _summary(job: Job) -> str:
    config = job.config
    if job.kind == "teacher":
        return f"gamma={config.balance.teacher_gamma:g} seed={config.seed}"
    known, usual = config.flatten(), Config.preset(config.data.source, config.task).flatten()
    names = (name for name in searched_knobs(config.method, GROUPS) if known[name] != usual[name])
    return " ".join([config.method, *(f"{name.rpartition('.')[2]}={known[name]:.2g}" for name in names)])


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
