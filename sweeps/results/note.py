"""The description of a sweep in MLflow: the request, the command that repeats it, the tables."""

import dataclasses
import shlex
from collections.abc import Callable, Sequence

from ltsd.markdown import within
from sweeps.journal.jobs import Kind, Report
from sweeps.journal.record import JobRecord, Record
from sweeps.results import report
from sweeps.results.confirm import Choice
from sweeps.settings.flags import Settings
from sweeps.settings.sweep import Sweep
from sweeps.study.searcher import Study

LIMIT = 8000
"""Characters that MLflow keeps of a description."""
REST = "\nThe rest is in the artifact `table.md`.\n"
PLACES = (*("name", "storage", "shared", "tracking_uri", "study_uri", "ray_address", "concurrency", "gpus_per_trial"),)
"""Settings that say where a sweep runs and writes; they do not change its results."""


OVER: dict[Kind, str] = {"trial": "trials", "confirm": "confirmations", "final": "final runs"}
RUNS = "The sweep runs, or was interrupted: its trials are nested under this run."


class GrowingNote:
    """A `Listener` that describes the sweep again whenever a trial, a confirmation or a final run ends."""

    def __init__(self, sweep: Sweep, record: Record, studies: Sequence[Study], describe: Callable[[str], None]) -> None:
        self._sweep, self._record, self._studies, self._describe = sweep, record, studies, describe

    def started(self, known: JobRecord) -> None:
        """Do nothing: the numbers are the same."""

    def reported(self, known: JobRecord, report: Report) -> None:
        """Do nothing: the numbers of a job count when it ends."""

    def ended(self, known: JobRecord) -> None:
        """Describe the results so far."""
        if known.job.kind != "teacher":
            self._describe(note(self._sweep, "\n".join(self._so_far())))

    def _so_far(self) -> list[str]:
        over = [known.job.kind for known in self._record.jobs.values() if known.outcome is not None]
        counts = ", ".join(f"{over.count(kind)} {title}" for kind, title in OVER.items())
        preference = self._sweep.settings.preference
        choices = [Choice.of(self._record, study.objectives, preference, study.row) for study in self._studies]
        return [f"{RUNS} Over: {counts}.\n", *report.fronts(self._studies, choices)]


def note(sweep: Sweep, table: str = RUNS) -> str:
    """Return the description in Markdown, at most `LIMIT` characters; without a table, that of a running sweep.

    Args:
        sweep: the sweep.
        table: the text of its `table.md`; paragraphs that do not fit are left out.
    """
    made_by = f"\nMade by\n\n```\n{command(sweep)}\n```\n"
    return within(f"{_asked(sweep)}\n\n{table.strip()}", LIMIT - len(made_by), REST) + made_by


def command(sweep: Sweep) -> str:
    """Return the command that repeats a sweep: every setting that is not the default, and every fixed knob."""
    settings, defaults = dataclasses.asdict(sweep.settings), dataclasses.asdict(Settings())
    given = {name: value for name, value in settings.items() if name not in PLACES and value != defaults[name]}
    flags = [f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in (given | sweep.fixed).items()]
    return " ".join(["python sweeps/search.py", *flags])


def _asked(sweep: Sweep) -> str:
    base, settings = sweep.base, sweep.settings
    if not settings.trials:
        return f"**{', '.join(sweep.rows)}** compared on `{base.data.source}`."
    rivals = [row for row in sweep.searched if row]
    tuned = f"; {', '.join(rivals)} tuned alike" if rivals else ""
    return (
        f"**{base.method}** on `{base.data.source}`: {settings.trials} trials, {settings.objectives} maximised on "
        f"validation{tuned}."
    )
