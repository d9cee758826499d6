"""The final runs of a sweep: of the finalists, of the ends of the front, and of the references."""

from dataclasses import dataclass, replace
from pathlib import Path

from ltsd.config import Config
from sweeps.journal.jobs import Job
from sweeps.settings.rows import END, TUNED, overrides


@dataclass(frozen=True)
class Exams:
    """The AutoAttack ensembles of the finalist and of the references, the number of seeds, and the reference rows."""

    seeds: int
    finalist: str
    references: str
    rows: tuple[str, ...]


def jobs_of_trial(row: str, trial: int, config: Config, exams: Exams, folder: Path) -> list[Job]:
    """Return the final runs of a trial's configuration, one a seed, on the complete training set; ends of the front get
    the exam of a reference.
    """
    exam = exams.references if row.startswith(END) else exams.finalist
    of_search = row.removeprefix(TUNED) if row.startswith(TUNED) else ""
    return _jobs(f"{row}-{trial:04d}", config, exams.seeds, exam, folder, of_search)


def reference_jobs(base: Config, exams: Exams, folder: Path) -> list[Job]:
    """Return the final runs of the reference rows on the same splits and seeds, seed by seed."""
    by_row = [_jobs(row, base.override(overrides(row)), exams.seeds, exams.references, folder) for row in exams.rows]
    return [job for of_seed in zip(*by_row, strict=True) for job in of_seed]


def is_of_row(reference: Job, row: str) -> bool:
    """Return whether a reference is a run of a row."""
    return reference.key.startswith(f"final-{row}-s")


def _jobs(row: str, config: Config, seeds: int, exam: str, folder: Path, of_search: str = "") -> list[Job]:
    return [
        Job(
            "final",
            f"final-{row}-s{seed}",
            replace(config, seed=seed),
            "complete",
            str(folder),
            exam=exam,
            row=of_search,
        )
        for seed in range(config.seed, config.seed + seeds)
    ]
