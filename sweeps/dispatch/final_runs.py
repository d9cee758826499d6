"""The final runs of a sweep: of the finalists, of the ends of the front, and of the references."""

from dataclasses import replace

from ltsd.config import Config
from sweeps.journal.jobs import Job
from sweeps.settings.flags import Settings
from sweeps.settings.rows import END, TUNED
from sweeps.settings.sweep import Sweep


def jobs_of_trial(row: str, trial: int, config: Config, sweep: Sweep) -> list[Job]:
    """Return the final runs of a trial's configuration, one per seed, on the complete training set; ends of the front
    get the exam of a reference.
    """
    of_finalist, of_reference = sweep.attacks
    exam = of_reference if row.startswith(END) else of_finalist
    of_search = row.removeprefix(TUNED) if row.startswith(TUNED) else ""
    return _jobs(f"{row}-{trial:04d}", config, exam, sweep.settings, of_search)


def reference_jobs(sweep: Sweep) -> list[Job]:
    """Return the final runs of the reference rows on the same splits and seeds, seed by seed."""
    _, exam = sweep.attacks
    by_row = [_jobs(row, sweep.base_of(row), exam, sweep.settings) for row in sweep.rows]
    return [job for of_seed in zip(*by_row, strict=True) for job in of_seed]


def is_of_row(reference: Job, row: str) -> bool:
    """Return whether a reference is a run of a row."""
    return reference.key.startswith(f"final-{row}-s")


def _jobs(row: str, config: Config, exam: str, settings: Settings, of_search: str = "") -> list[Job]:
    folder = str(settings.folder.absolute())
    return [
        Job("final", f"final-{row}-s{seed}", replace(config, seed=seed), "complete", folder, exam=exam, row=of_search)
        for seed in range(config.seed, config.seed + settings.final_seeds)
    ]
