"""Which job runs next: Ray asks for work here, and tells here what became of it."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from ray.tune.search import Searcher

from ltsd.config import Config
from ltsd.methods import METHODS
from sweeps.dispatch.running import DEATHS, Running
from sweeps.findings import confirm, finals
from sweeps.findings.finals import Exams
from sweeps.journal.exchange import Exchange
from sweeps.journal.jobs import BEGINS, Job, Report, drop_previous_checkpoint
from sweeps.journal.record import JobRecord, Outcome, Record
from sweeps.machines.machine import Machines
from sweeps.study.searcher import OBJECTIVE, STATES, Proposal, Study, first_line, trial_number
from sweeps.worker.teachers import TeacherStore, is_trained


class Listener(Protocol):
    """Somebody who is told what happens to jobs, once it is on record: the live view, the MLflow side."""

    def started(self, known: JobRecord) -> None:
        """A worker took up a job."""

    def reported(self, known: JobRecord, report: Report) -> None:
        """A worker reported."""

    def ended(self, known: JobRecord) -> None:
        """A job is over."""


class Plan(Searcher):
    """The jobs of a sweep: trials as Optuna proposes them, then confirmations of the best, then the finalist.

    A job whose teacher is not trained waits here, not in a worker, while the teacher and others run. References
    need nothing of the search and fill workers that it leaves idle. `final_runs` is how many final runs this
    process has to make, as far as is known.
    """

    def __init__(
        self,
        base: Config,
        record: Record,
        study: Study,
        store: TeacherStore,
        folder: Path,
        *,
        trials: int,
        confirmed: int,
        rungs: Sequence[int],
        exams: Exams,
        machines: Machines,
        exchange: Exchange,
        listeners: Sequence[Listener],
    ) -> None:
        super().__init__()
        self._base, self._record, self._study, self._store, self._folder = base, record, study, store, folder
        self._confirmed = confirmed
        self._trials, self._rungs, self._exams, self._machines = trials, rungs, exams, machines
        self._exchange, self._listeners = exchange, listeners
        self._running: dict[str, Running] = {}
        self._teachers_ready: set[str] = set()
        self._stages = [self._confirmations, self._finalists]
        self._waiting = [self._trial_job(proposal) for proposal in study.orphans()]
        references = self._not_done(finals.reference_jobs(base, exams, folder))
        # The finalist may turn out to be the untuned row of the method that is searched: not both are run.
        self._untuned = [job for job in references if trials and job.config.method == base.method]
        self._references = [job for job in references if job not in self._untuned]
        self.final_runs = len(references) + (exams.seeds if trials else 0)
        self.halted = ""

    def suggest(self, trial_id: str) -> Any:
        """The next job for Ray: its parameters, None while there is none, FINISHED after the last."""
        if self.halted:
            return str(Searcher.FINISHED)
        if len(self._running) > self._machines.carries():
            return None
        with self._halting():
            job = self._next()
            if job is None:
                return None if self._running or self._waiting else str(Searcher.FINISHED)
            self._running[trial_id] = Running(job)
            return job.params()
        return str(Searcher.FINISHED)

    def reported(self, trial_id: str, report: Report) -> bool:
        """Keep what a worker reported; returns whether the job goes on.

        What cannot be kept is not acknowledged: where the disk is full or gone, the sweep halts as it is.
        """
        running = self._running[trial_id]
        if report.halts:
            self.halted = self.halted or report.failure
        with self._halting():
            return not self.halted and self._take(running, report)
        return False

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Settle a job that Ray says is over."""
        running = self._running.pop(trial_id)
        with self._halting():
            if not self.halted:
                self._settle(running, *running.outcome())

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: `reported` has heard of it already."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its arguments into a snapshot that is never read."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study and the sweep's folder are the record, not Ray's snapshot."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""

    @contextlib.contextmanager
    def _halting(self) -> Iterator[None]:
        """Inside, what cannot be written halts the sweep: it ends as it is, and can be resumed."""
        try:
            yield
        except (OSError, StorageInternalError) as error:
            self.halted = first_line(error.__cause__ or error)

    def _settle(self, running: Running, outcome: Outcome, reason: str) -> None:
        job = running.job
        self._take_up(running, running.last)
        self._exchange.gather(job)
        self._record.ended(job, outcome, reason)
        drop_previous_checkpoint(job)
        self._exchange.settle(job)
        if job.kind == "teacher" and outcome == "failed":
            self._give_up_students(job, reason)
        elif job.kind == "trial":
            self._study.finish(trial_number(job), STATES[outcome], running.last.values.get(OBJECTIVE))
        for listener in self._listeners:
            listener.ended(self._record.jobs[job.key])

    def _take(self, running: Running, report: Report) -> bool:
        self._take_up(running, report)
        known = self._record.jobs[running.job.key]
        before = known.last_epoch
        for one in (*report.past, *([] if report.phase == BEGINS else [report])):
            self._keep(running, one)
        running.last = report.past[-1] if report.past else report
        if report.phase == BEGINS and not self._may_begin(running, report.host, before):
            return False
        if running.job.kind == "trial" and running.last.epoch in self._rungs and running.last.epoch == known.last_epoch:
            running.is_poor = self._study.is_poor(trial_number(running.job))
        return not (running.is_poor or report.failure)

    def _take_up(self, running: Running, report: Report) -> None:
        if report.phase == BEGINS or not running.begun:
            running.begun = True
            self._record.started(running.job, report.epoch if report.phase == BEGINS else 0, report.host)
            for listener in self._listeners:
                listener.started(self._record.jobs[running.job.key])

    def _keep(self, running: Running, report: Report) -> None:
        """Have the report on the disk first, then tell those who act on it."""
        job = running.job
        news = self._record.reported(job, report)
        if news and job.kind == "trial" and OBJECTIVE in report.values:
            self._study.report(trial_number(job), report.epoch, report.values[OBJECTIVE])
        if news or report.phase != "train":
            for listener in self._listeners:
                listener.reported(self._record.jobs[job.key], report)

    def _may_begin(self, running: Running, host: str, known: int) -> bool:
        """Whether a worker may take up a job: not after others died over the same epoch of it, on hosts that live."""
        if running.begun_after != known:
            running.deaths = 0
        elif self._machines.has(running.host):
            running.deaths += 1
        running.host = host
        running.begun_after = max(known, running.last.epoch)
        return running.deaths <= DEATHS

    def _give_up_students(self, teacher: Job, reason: str) -> None:
        for queue in (self._waiting, self._references):
            for student in [student for student in queue if student.teacher == teacher.teacher]:
                queue.remove(student)
                self._give_up(student, f"its teacher failed ({reason})")

    def _give_up(self, job: Job, reason: str) -> None:
        """Settle a job that cannot start."""
        self._record.started(job, 0)
        self._record.ended(job, "failed", reason)
        if job.kind == "trial":
            self._study.finish(trial_number(job), TrialState.FAIL)
        for listener in self._listeners:
            listener.started(self._record.jobs[job.key])
            listener.ended(self._record.jobs[job.key])

    def _next(self) -> Job | None:
        while True:
            job = self._startable(self._waiting)
            if job is not None:
                return job
            if self._may_ask():
                self._waiting.append(self._trial_job(self._propose()))
            elif self._stages and self._stage_is_over():
                self._waiting += self._stages.pop(0)()
            else:
                return self._startable(self._references)

    def _startable(self, queue: list[Job]) -> Job | None:
        """The first job of a queue that can start, or the teacher that it waits for where nobody trains it yet."""
        in_training = {running.job.teacher for running in self._running.values() if running.job.kind == "teacher"}
        for job in queue:
            if job.teacher in in_training:
                continue
            if job.teacher and not self._is_ready(job.teacher):
                return self._teacher_job(job)
            queue.remove(job)
            return job
        return None

    def _is_ready(self, teacher: str) -> bool:
        path = Path(teacher)
        if teacher not in self._teachers_ready and self._exchange.bring(path) and is_trained(path):
            self._teachers_ready.add(teacher)
        return teacher in self._teachers_ready

    def _may_ask(self) -> bool:
        return len(self._waiting) < self._machines.carries() and self._study.asked < self._trials

    def _stage_is_over(self) -> bool:
        return not self._waiting and all(running.job.kind in ("teacher", "final") for running in self._running.values())

    def _confirmations(self) -> list[Job]:
        trials = confirm.candidates(self._study.trials(TrialState.COMPLETE), self._confirmed)
        return self._not_done(confirm.confirmation_jobs(self._base, trials, self._folder, self._exchange))

    def _finalists(self) -> list[Job]:
        number = confirm.chosen(confirm.scores(self._record))
        wanted = []
        if number is not None:
            config = self._base.override(self._study.trials()[number].params)
            wanted = [self._taught(job) for job in finals.finalist_jobs(number, config, self._exams, self._folder)]
        jobs = self._not_done(wanted)
        untuned = [job for job in self._untuned if job.config not in [job.config for job in wanted]]
        self._references += untuned
        expected = len(self._untuned) + (self._exams.seeds if self._trials else 0)
        self.final_runs += len(untuned) + len(jobs) - expected
        return jobs

    def _not_done(self, jobs: list[Job]) -> list[Job]:
        return [self._taught(job) for job in jobs if not self._record.is_done(job)]

    def _propose(self) -> Proposal:
        proposal = self._study.ask()
        self._record.proposed(proposal.number, proposal.params)
        return proposal

    def _trial_job(self, proposal: Proposal) -> Job:
        config = self._base.override(proposal.params)
        return self._taught(Job("trial", f"trial-{proposal.number:04d}", config, "train", str(self._folder)))

    def _taught(self, job: Job) -> Job:
        """The job with the path of its teacher, and with the teacher's gamma in its configuration."""
        if not METHODS[job.config.method].needs_teacher:
            return job
        teacher = self._teacher_job(job)
        gamma = teacher.config.balance.teacher_gamma
        return replace(job, teacher=teacher.teacher, config=job.config.override({"balance.teacher_gamma": gamma}))

    def _teacher_job(self, student: Job) -> Job:
        return self._store.job(student.config, student.part, self._folder)
