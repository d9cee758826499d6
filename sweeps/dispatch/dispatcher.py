"""Hand the jobs of a plan to Ray and handle their events: each event is recorded first, then passed to listeners."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from optuna.trial import TrialState
from ray.tune.search import Searcher

from sweeps.dispatch.helping import helping_job
from sweeps.dispatch.plan import Plan
from sweeps.dispatch.running import DEATHS, Running
from sweeps.journal.exchange import Exchange
from sweeps.journal.jobs import BEGINS, Job, Report, drop_previous_checkpoint
from sweeps.journal.record import JobRecord, Outcome, Record
from sweeps.machines.machine import Machines
from sweeps.study.searcher import STATES, Study, is_scored, trial_number


class Listener(Protocol):
    """Receives the events of jobs after they are on record. Examples are the live view and the MLflow tracker."""

    def started(self, known: JobRecord) -> None:
        """A worker started or continued a job."""

    def reported(self, known: JobRecord, report: Report) -> None:
        """A worker reported."""

    def ended(self, known: JobRecord) -> None:
        """A job ended."""


class Dispatcher(Searcher):
    """A Ray Tune searcher that hands out the jobs of a plan and records their events.

    `rungs` are the epochs at which trials are compared. `halted` is the reason why the sweep cannot continue; "" if
    there is none.
    """

    def __init__(
        self,
        plan: Plan,
        record: Record,
        studies: Sequence[Study],
        rungs: Sequence[int],
        machines: Machines,
        exchange: Exchange,
        listeners: Sequence[Listener],
    ) -> None:
        super().__init__()
        self._plan, self._record, self._rungs = plan, record, rungs
        self._studies = {study.row: study for study in studies}
        self._machines, self._exchange, self._listeners = machines, exchange, listeners
        self._running: dict[str, Running] = {}
        self.halted = ""

    def suggest(self, trial_id: str) -> Any:
        """Return the next job's parameters for Ray; None if there is none yet, FINISHED after the last."""
        if self.halted:
            return str(Searcher.FINISHED)
        if len(self._running) > self._machines.carries():
            return None
        with self._halting():
            job = self._plan.next([running.job for running in self._running.values()])
            if job is None and len(self._running) < self._machines.carries():
                job = helping_job(list(self._running.values()))
            if job is None:
                return None if self._running else str(Searcher.FINISHED)
            self._running[trial_id] = Running(job)
            return job.params()
        return str(Searcher.FINISHED)

    def reported(self, trial_id: str, report: Report) -> bool:
        """Record what a worker reported; return whether the job continues.

        A report that cannot be recorded is not acknowledged: if the disk is full or gone, the sweep halts.
        """
        running = self._running[trial_id]
        running.silent = 0
        if report.halts:
            self.halted = self.halted or report.failure
        if running.job.kind == "shard":
            return False
        with self._halting():
            return not self.halted and self._take(running, report)
        return False

    def died(self, trial_id: str) -> bool:
        """Count a worker that died; return whether its job gets another one: not after more than DEATHS in a row that
        reported nothing.
        """
        running = self._running[trial_id]
        running.silent += 1
        return running.silent <= DEATHS

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record the end of a job that ended in Ray; put it back into the plan if Ray gave it up.

        Ray Tune restarts a trial whose worker died. But if the node of a reused worker is lost while the trial waits
        for that worker, Ray gives the trial up as an error, although the job has not failed.
        """
        running = self._running.pop(trial_id)
        if running.job.kind == "shard":
            self._end_helping(running.job)
            return
        if error:
            self._plan.put_back(running.job)
            return
        with self._halting():
            if not self.halted:
                self._settle(running, *running.outcome())

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: `reported` has handled it."""

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Ray pickles its arguments into a snapshot that is never read."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the journal is the record, not Ray's snapshot."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, see `save`."""

    @contextlib.contextmanager
    def _halting(self) -> Iterator[None]:
        """Halt the sweep if something cannot be written; it can be resumed."""
        try:
            yield
        except OSError as error:
            self.halted = str(error)

    def _settle(self, running: Running, outcome: Outcome, reason: str) -> None:
        job = running.job
        self._take_up(running, running.last)
        self._exchange.gather(job)
        self._record.ended(job, outcome, reason)
        drop_previous_checkpoint(job)
        self._exchange.settle(job)
        if job.kind == "final" and outcome == "done":
            self._exchange.drop_shards(job)
        if job.kind == "teacher" and outcome == "failed":
            for student in self._plan.strike(job.teacher):
                self._give_up(student, f"its teacher failed ({reason})")
        elif job.kind == "trial":
            self._studies[job.row].finish(trial_number(job), STATES[outcome])
        for listener in self._listeners:
            listener.ended(self._record.jobs[job.key])

    def _end_helping(self, job: Job) -> None:
        """Remove a shard that came after the end of its exam."""
        with self._halting():
            if not self.halted and self._record.jobs[job.key].outcome is not None:
                self._exchange.drop_shards(job)

    def _take(self, running: Running, report: Report) -> bool:
        self._take_up(running, report)
        known = self._record.jobs[running.job.key]
        for one in (*report.past, *([] if report.phase == BEGINS else [report])):
            self._keep(running, one)
        running.last = report.past[-1] if report.past else report
        if report.phase == BEGINS and not self._may_begin(running, report.host, known.last_epoch):
            return False
        if running.job.kind == "trial" and running.last.epoch in self._rungs and running.last.epoch == known.last_epoch:
            running.is_poor = self._studies[running.job.row].is_poor(trial_number(running.job))
        return not (running.is_poor or report.failure)

    def _take_up(self, running: Running, report: Report) -> None:
        if report.phase == BEGINS or not running.begun:
            running.begun = True
            self._record.started(running.job, report.epoch if report.phase == BEGINS else 0, report.host)
            for listener in self._listeners:
                listener.started(self._record.jobs[running.job.key])

    def _keep(self, running: Running, report: Report) -> None:
        """Put the report on disk first, then tell the listeners."""
        job = running.job
        news = self._record.reported(job, report)
        if news and job.kind == "trial" and is_scored(job, report):
            self._studies[job.row].report(trial_number(job), report.epoch, report.values)
        if news or report.phase != "train":
            for listener in self._listeners:
                listener.reported(self._record.jobs[job.key], report)

    def _may_begin(self, running: Running, host: str, known: int) -> bool:
        """Return whether a worker may start a job: not after more than DEATHS in a row died in the same epoch, on hosts
        that are still up.
        """
        if running.begun_after != known:
            running.deaths = 0
        elif self._machines.has(running.host):
            running.deaths += 1
        running.host = host
        running.begun_after = known
        return running.deaths <= DEATHS

    def _give_up(self, job: Job, reason: str) -> None:
        """Record that a job failed because it cannot start."""
        self._record.started(job, 0)
        self._record.ended(job, "failed", reason)
        if job.kind == "trial":
            self._studies[job.row].finish(trial_number(job), TrialState.FAIL)
        for listener in self._listeners:
            listener.started(self._record.jobs[job.key])
            listener.ended(self._record.jobs[job.key])
