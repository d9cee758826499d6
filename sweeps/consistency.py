"""Compare Optuna's study, the checkpoints and MLflow with the record of a sweep; repair study and MLflow from it."""

import json
import time
from collections.abc import Iterator

from ltsd.data import load_splits
from sweeps.journal.exchange import Exchange, exchange_of
from sweeps.journal.jobs import Job
from sweeps.journal.record import JobRecord, Record, epochs_kept, open_mended
from sweeps.results import finals, report
from sweeps.results.confirm import Choice
from sweeps.results.html import FILE as REPORT
from sweeps.results.note import RUNS, note
from sweeps.settings.sweep import JOURNAL_FILE, Sweep
from sweeps.study.database import check_stores, study_storage_of
from sweeps.study.searcher import Study
from sweeps.study.space import sweep_space
from sweeps.study.stored import StoredStudy
from sweeps.tracking import agreement
from sweeps.tracking.view import MlflowView


class Views:
    """The record of a sweep that no process works on, and everything that should agree with it."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep, base = sweep, sweep.base
        self._folder = sweep.settings.folder.absolute()
        check_stores(sweep.settings)
        self._said: list[str] = []
        self._stored = {
            row: StoredStudy(study_storage_of(sweep, row), sweep.objectives, self._said.append, row)
            for row in sweep.searched
        }
        self.record = Record.read(self._folder)
        splits = load_splits(base.data)
        self._spaces = {row: sweep_space(sweep, splits.imbalance_ratio, row) for row in sweep.searched}
        self._view = MlflowView.of(sweep, splits, {row: list(space) for row, space in self._spaces.items()})
        self._view.reach()
        self._exchange = exchange_of(sweep.settings)
        self._exchange.begin(sweep.settings, is_new=False)

    def differences(self) -> dict[str, list[str]]:
        """Return how the views differ from the record, by job, or by file if no single job is concerned."""
        found: dict[str, list[str]] = {}
        if self.record.damaged:
            lines = ", ".join(map(str, self.record.damaged))
            found[JOURNAL_FILE] = [
                f"damaged in line {lines}; a resume or --repair takes what they held from checkpoints"
            ]
        parts = (
            *(stored.differences(self._study(row).trials()) for row, stored in self._stored.items()),
            differences_of_checkpoints(self.record, self._exchange),
            agreement.differences(self._view, self.record, self._model()),
        )
        for part in parts:
            for key, lines_of_job in part.items():
                found.setdefault(key, []).extend(lines_of_job)
        return found

    def repair(self) -> Iterator[str]:
        """Bring the studies and MLflow in line with the record; yield what was done."""
        self.record, mended = open_mended(self._folder, self._exchange)
        yield mended or "the journal is whole"
        for row, stored in self._stored.items():
            stored.bring(self._study(row).trials())
        yield from self._said or ["the study agrees"]
        self._view.open()
        self._view.describe_sweep()
        found = agreement.repair(self._view, self.record)
        yield f"MLflow: {len(found)} of {len(self.record.jobs)} jobs were written again"
        choices = [self._choice(row) for row in self._sweep.searched]
        results = finals.results(self.record, choices, self._sweep.rows)
        kept = ("pictures/*.png", "table.md", REPORT)
        pictures = [path for pattern in kept for path in sorted(self._folder.glob(pattern))]
        at = max((known.ended for known in self.record.jobs.values()), default=int(time.time() * 1000))
        numbers = report.metrics(self.record, self._study(), choices[0], results, self._sweep.exam)
        self._view.finish(numbers, at, pictures, self._model())
        table = self._folder / "table.md"
        self._view.describe(note(self._sweep, table.read_text(encoding="utf-8") if table.exists() else RUNS))
        self._view.close("FINISHED" if finals.are_in(results, self._sweep.settings.trials) else "KILLED")

    def _study(self, row: str = "") -> Study:
        return Study(self.record, self._sweep.base.seed, self._spaces[row], self._sweep.objectives, row=row)

    def _choice(self, row: str = "") -> Choice:
        settings = self._sweep.settings
        return Choice.of(self.record, self._sweep.objectives, settings.preference, row)

    def _model(self) -> Job | None:
        return finals.finalist_model(self.record, self._choice())


def differences_of_checkpoints(record: Record, exchange: Exchange) -> dict[str, list[str]]:
    """Return the jobs whose newest intact checkpoint has other epochs, or other values, than the record."""
    found = {key: list(_told(known, exchange)) for key, known in record.jobs.items()}
    return {key: told for key, told in found.items() if told}


def _told(known: JobRecord, exchange: Exchange) -> Iterator[str]:
    have = {one.epoch: one.values for one in epochs_kept(known.job, exchange)}
    if known.epochs and not have:
        yield f"there is no whole checkpoint of it, and the journal has {known.last_epoch} epochs"
        return
    for epoch, one in known.epochs.items():
        if epoch not in have and known.outcome is not None:
            yield f"its checkpoint lacks epoch {epoch}"
        elif epoch in have and json.dumps(have[epoch]) != json.dumps(one.values):  # nan is not nan
            yield f"its checkpoint has other values at epoch {epoch} than the journal"
