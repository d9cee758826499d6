"""Keep MLflow up to date while a sweep runs; MLflow may be down, and never holds up training."""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from mlflow.exceptions import MlflowException

from sweeps.journal.jobs import Job, Report
from sweeps.journal.outbox import Outbox
from sweeps.journal.record import JobRecord, Record
from sweeps.settings.addresses import without_secret
from sweeps.tracking.agreement import repair
from sweeps.tracking.view import PARENT, MlflowView, is_outage

REFUSED_S = 4.0


class Tracker:
    """A `Listener` that keeps MLflow's view of the sweep up to date and never holds up training."""

    def __init__(self, view: MlflowView, uri: str, say: Callable[[str], None]) -> None:
        self._view, self._uri, self._loud = view, uri, say
        self._outbox = Outbox("MLflow", is_outage, self._say)

    def open(self, record: Record) -> None:
        """Reach MLflow, bring it in line with the record, and continue from there.

        Raises:
            UserError: nothing usable answers at the tracking URI.
        """
        self._view.open()
        self._outbox.put("the sweep", self._view.describe_sweep)
        if record.jobs:
            with self._view.answering():
                repaired = repair(self._view, record)
            if repaired:
                self._say(f"MLflow lacked something of {len(repaired)} jobs and has it now")
        self._outbox.start()

    def page(self, job: str = PARENT) -> str:
        """See `MlflowView.page`."""
        return self._view.page(job)

    def describe(self, note: str) -> None:
        """Set the description of the sweep's run."""
        self._outbox.put("the description", lambda: self._view.describe(note))

    def started(self, known: JobRecord) -> None:
        """See `Listener`."""
        self._tell(known)

    def reported(self, known: JobRecord, report: Report) -> None:
        """See `Listener`."""
        if report.values:
            self._tell(known)

    def ended(self, known: JobRecord) -> None:
        """See `Listener`."""
        self._tell(known)

    def _tell(self, known: JobRecord) -> None:
        now = known.copy()
        self._outbox.put(known.job.key, lambda: self._view.bring(now))

    def finish(self, metrics: Mapping[str, float], artifacts: Iterable[Path], model: Job | None) -> None:
        """Record how the sweep ended: its numbers and pictures, the finalist's model."""
        at = int(time.time() * 1000)
        self._outbox.put("the end", lambda: self._view.finish(metrics, at, artifacts, model))

    def refuse(self, *, is_new: bool) -> None:
        """Leave MLflow as it was before a sweep, or a resume, that cannot begin."""
        self._outbox.close(REFUSED_S)
        with contextlib.suppress(MlflowException, OSError):
            if is_new:
                self._view.withdraw()
            else:
                self._view.close("KILLED")

    def close(self, status: str, patience_s: float) -> None:
        """Write the rest, within `patience_s`, and end the sweep's run with `status`."""
        self._outbox.put("the close", lambda: self._view.close(status))
        left = self._outbox.close(patience_s)
        if left:
            self._say(
                f"MLflow lacks the latest of {left} runs; the sweep's folder has it, and a resume or an audit writes it"
            )

    def _say(self, text: str) -> None:
        self._loud(without_secret(text, self._uri))
