"""What is compared at the end of a sweep, on which seeds, and the table that comes of it."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ltsd.config import Config
from ltsd.files import publishing
from sweeps.jobs import Job
from sweeps.record import Record

FINALIST = "finalist"
REFERENCES = {"ltsd-default": "ltsd", "at-bsl": "at-bsl", "at": "at"}
TITLES = {FINALIST: "finalist", "ltsd-default": "LTSD, untuned", "at-bsl": "AT-BSL", "at": "AT"}
COLUMNS = {
    "clean": "test/clean_acc",
    "tail clean": "test/tail_clean_acc",
    "PGD-20": "test/pgd20_acc",
    "head PGD-20": "test/head_robust_acc",
    "medium PGD-20": "test/medium_robust_acc",
    "tail PGD-20": "test/tail_robust_acc",
    "worst class PGD-20": "test/worst_class_robust_acc",
    "CW-20": "test/cw20_acc",
    "LSA-20": "test/ls20_acc",
    "corruption": "test/corruption_acc",
    "tail corruption": "test/tail_corruption_acc",
    "AutoAttack": "test/aa_acc",
    "tail AA": "test/tail_aa_acc",
    "APGD-CE+T": "test/apgd_ce_t_acc",
}
SHOWN = (
    *("clean", "tail clean", "PGD-20", "tail PGD-20", "CW-20", "corruption"),
    *("AutoAttack", "tail AA", "APGD-CE+T"),
)
"""What is shown at the end of a sweep; the table in its folder has every column."""


@dataclass(frozen=True)
class Exams:
    """Which ensemble the finalist and the references are examined with, and on how many seeds."""

    seeds: int
    finalist: str
    references: str


def finalist_jobs(trial: int, best: Config, exams: Exams, folder: Path) -> list[Job]:
    """The configuration of the best trial, trained on the complete training set, once a seed."""
    return _jobs(f"{FINALIST}-{trial:04d}", best, exams.seeds, exams.finalist, folder)


def reference_jobs(base: Config, exams: Exams, folder: Path) -> list[Job]:
    """The untuned methods on the same splits and seeds."""
    jobs: list[Job] = []
    for row, method in REFERENCES.items():
        jobs += _jobs(row, replace(base, method=method), exams.seeds, exams.references, folder)
    return jobs


def _jobs(row: str, config: Config, seeds: int, exam: str, folder: Path) -> list[Job]:
    return [
        Job("final", f"final-{row}-s{seed}", replace(config, seed=seed), "complete", str(folder), exam=exam)
        for seed in range(config.seed, config.seed + seeds)
    ]


Exam = Mapping[str, Any]
Results = dict[str, list[Exam]]


def results(record: Record, chosen: int | None) -> Results:
    """The exams so far by row, in the order of the table; of the finalists only those of the trial that was chosen."""
    names = {f"{FINALIST}-{chosen:04d}" if chosen is not None else FINALIST: FINALIST} | dict(
        zip(REFERENCES, REFERENCES, strict=True)
    )
    found: Results = {row: [] for row in TITLES}
    for known in sorted(record.of_kind("final"), key=lambda known: known.job.config.seed):
        row = names.get(known.job.key.removeprefix("final-").rpartition("-s")[0])
        if row is not None and known.result is not None and known.result.exam is not None:
            found[row].append(known.result.exam)
    return {row: exams for row, exams in found.items() if exams}


def finalist_model(record: Record, chosen: int | None) -> Job | None:
    """The finalist's run of the first seed, whose model is the sweep's; None where it is not done."""
    runs = [known.job for known in record.of_kind("final") if known.outcome == "done" and chosen is not None]
    return next((job for job in runs if job.key.startswith(f"final-{FINALIST}-{chosen:04d}-s")), None)


def summary(exams: Sequence[Exam], metric: str) -> tuple[float, float] | None:
    """Mean and standard deviation over seeds of a test metric; None where it was not measured."""
    values = [exam["metrics"][metric] for exam in exams if metric in exam["metrics"]]
    if not values:
        return None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def table(results: Results, titles: Iterable[str]) -> list[list[str]]:
    """Header and rows as text, percent, mean ± standard deviation over seeds; columns nobody has are left out."""
    metrics = {title: COLUMNS[title] for title in titles}
    columns = {
        title: metric for title, metric in metrics.items() if any(summary(exams, metric) for exams in results.values())
    }
    rows = [["", *columns]]
    for row, exams in results.items():
        cells = [summary(exams, metric) for metric in columns.values()]
        rows.append([TITLES[row], *("–" if c is None else f"{100 * c[0]:.1f} ± {100 * c[1]:.1f}" for c in cells)])
    return rows


def write_table(results: Results, folder: Path, note: str) -> Path:
    """Keep the table as Markdown in the sweep's folder, with what there is to note of it."""
    path = folder / "table.md"
    with publishing(path) as temporary:
        temporary.write_text(f"{markdown(table(results, COLUMNS))}\n{note}\n")
    return path


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its columns aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines) + "\n"
