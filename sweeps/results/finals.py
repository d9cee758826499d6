"""The final comparison: which rows, on which seeds, and the table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltsd.evaluation.exams import Exam
from ltsd.files import publishing
from ltsd.markdown import percent, spread
from sweeps.journal.jobs import Job
from sweeps.journal.record import JobRecord, Record
from sweeps.results.confirm import Choice
from sweeps.settings.rows import END, FINALIST, TUNED, title_of


def chosen_rows(choice: Choice) -> dict[str, int]:
    """Return the table rows that a search gives, with their trials: its finalist and, for the sweep's own search, the
    ends of the front.
    """
    finalist = {} if choice.finalist is None else {f"{TUNED}{choice.row}" if choice.row else FINALIST: choice.finalist}
    return finalist | ({} if choice.row else {f"{END}{name}": number for name, number in choice.ends.items()})


@dataclass(frozen=True)
class Examined:
    """A final run of one seed: the numbers of its exam, and the correctness file behind them."""

    seed: int
    exam: Mapping[str, Any]
    correctness: Path


Results = dict[str, list[Examined]]


def results(record: Record, choices: Sequence[Choice], rows: Sequence[str]) -> Results:
    """Return the exams so far by row, in table order; of the finalists only those of the chosen trials.

    Args:
        record: of the sweep.
        choices: of its searches, its own first.
        rows: the references.
    """
    keys = {f"{row}-{trial:04d}": row for choice in choices for row, trial in chosen_rows(choice).items()}
    keys |= {row: row for row in rows}
    found: Results = {row: [] for row in keys.values()}
    for known in sorted(record.of_kind("final"), key=lambda known: known.job.config.seed):
        row = keys.get(known.job.key.removeprefix("final-").rpartition("-s")[0])
        if row is not None and known.result is not None and known.result.exam is not None:
            found[row].append(Examined(known.job.config.seed, known.result.exam, known.job.correctness))
    return {row: runs for row, runs in found.items() if runs}


def are_in(results: Results, trials: int) -> bool:
    """Return whether the sweep has its result: a finalist or, if nothing was searched, rows to compare."""
    return FINALIST in results if trials else bool(results)


def finalist_runs(record: Record, choice: Choice) -> list[JobRecord]:
    """Return the final runs of the finalist that are done, in the order in which they started."""
    if choice.finalist is None:
        return []
    prefix = f"final-{FINALIST}-{choice.finalist:04d}-s"
    return [known for known in record.of_kind("final") if known.outcome == "done" and known.job.key.startswith(prefix)]


def finalist_model(record: Record, choice: Choice) -> Job | None:
    """Return the finalist's run of the first seed, whose model is registered; None if it is not done."""
    return next((known.job for known in finalist_runs(record, choice)), None)


def summary(runs: Sequence[Examined], metric: str) -> tuple[float, float | None] | None:
    """Return mean and standard deviation of a test metric over seeds; no deviation for one seed, None if it was not
    measured.
    """
    values = [run.exam["metrics"][metric] for run in runs if metric in run.exam["metrics"]]
    return spread(values) if values else None


def table(results: Results, exam: Exam, titles: Iterable[str]) -> list[list[str]]:
    """Return header and rows as text, in the columns `titles` of an exam: percent, mean ± standard deviation over
    seeds. Empty columns are left out; a row that lacks seeds says so.
    """
    seeds = max((len(runs) for runs in results.values()), default=0)
    metrics = {title: exam.columns[title] for title in titles}
    columns = {
        title: metric for title, metric in metrics.items() if any(summary(runs, metric) for runs in results.values())
    }
    rows = [["", *columns]]
    for row, runs in results.items():
        cells = [summary(runs, metric) for metric in columns.values()]
        lacks = f" ({len(runs)} of {seeds} seeds)" if len(runs) < seeds else ""
        rows.append([title_of(row) + lacks, *(cell(found) for found in cells)])
    return rows


def cell(found: tuple[float, float | None] | None) -> str:
    """Format mean and standard deviation in percent."""
    return "–" if found is None else percent(*found)


def write_table(parts: Sequence[str], folder: Path) -> Path:
    """Write the parts as Markdown into the sweep's folder; return the path."""
    path = folder / "table.md"
    with publishing(path) as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")
    return path
