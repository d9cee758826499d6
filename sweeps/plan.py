"""Which job runs next: Ray asks for work here, and tells here what became of it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

from optuna.trial import TrialState
from ray.tune.search import Searcher

from ltsd.config import Config
from ltsd.methods import METHODS
from sweeps import confirm, finals
from sweeps.finals import Exams
from sweeps.jobs import Job, Kind, Report
from sweeps.searcher import OBJECTIVE, Proposal, Study
from sweeps.teachers import TeacherStore, is_trained

Outcome = Literal["done", "reused", "pruned", "failed"]
LAST_PHASES: Mapping[Kind, tuple[str, ...]] = {
    "teacher": ("train", "reused"),
    "trial": ("train",),
    "confirm": ("confirmed",),
    "final": ("examined",),
}


class Listener(Protocol):
    """Somebody who is told what happens to jobs: the live view, the MLflow side."""

    def started(self, job: Job) -> None:
        """A worker took up a job."""

    def reported(self, job: Job, report: Report) -> None:
        """A worker reported."""

    def ended(self, job: Job, outcome: Outcome, reason: str) -> None:
        """A job is over; `reason` says why where it failed."""


class Plan(Searcher):
    """The jobs of a sweep: trials as Optuna proposes them, then confirmations of the best, then the finalist.

    A job whose teacher is not trained waits here, not in a worker, while the teacher and others run. References
    need nothing of the search and fill workers that it leaves idle. `final_runs` is how many final runs this
    process has to make, as far as is known.
    """

    def __init__(
        self,
        base: Config,
        study: Study,
        store: TeacherStore,
        folder: Path,
        *,
        trials: int,
        confirmed: int,
        rungs: Sequence[int],
        exams: Exams,
        concurrency: int,
        listeners: Sequence[Listener],
    ) -> None:
        super().__init__()
        self._base, self._study, self._store, self._folder = base, study, store, folder
        self._confirmed = confirmed
        self._trials, self._rungs, self._exams, self._concurrency = trials, rungs, exams, concurrency
        self._listeners = listeners
        self._running: dict[str, Job] = {}
        self._last_report: dict[str, Report] = {}
        self._pruned: set[str] = set()
        self._teachers_ready: set[str] = set()
        self._stages = [self._confirmations, self._finalists]
        self._waiting = [self._trial_job(proposal) for proposal in study.orphans()]
        self._references = self._without_results(finals.reference_jobs(base, exams, folder))
        self.final_runs = len(self._references) + exams.seeds
        self.failures: list[str] = []
        self.teachers = {"done": 0, "reused": 0}

    def model_of_finalist(self) -> Job | None:
        """The final run, of the first seed, whose model is the sweep's; None where it was not reached."""
        config = self.finalist()
        if config is None:
            return None
        job = finals.finalist_jobs(config, self._exams, self._folder)[0]
        return job if finals.result_path(job).exists() else None

    def finalist(self) -> Config | None:
        """The configuration that the confirmations chose; None before there are any."""
        number = confirm.chosen(confirm.scores(self._folder))
        return None if number is None else self._base.override(self._study.trials()[number].params)

    def suggest(self, trial_id: str) -> Any:
        """The next job for Ray: its parameters, None while there is none, FINISHED after the last."""
        if len(self._running) > self._concurrency:
            return None
        job = self._next()
        if job is None:
            return None if self._running or self._waiting else str(Searcher.FINISHED)
        self._running[trial_id] = job
        return job.params()

    def begun(self, trial_id: str) -> None:
        """A worker took up a job; before that it was the next in line."""
        for listener in self._listeners:
            listener.started(self._running[trial_id])

    def record(self, trial_id: str, report: Report) -> bool:
        """Keep a report; returns whether the job goes on."""
        job = self._running[trial_id]
        self._last_report[trial_id] = report
        for listener in self._listeners:
            listener.reported(job, report)
        if job.kind == "trial" and OBJECTIVE in report.values:
            poor = self._study.report(_number(job), report.epoch, report.values[OBJECTIVE])
            if poor and report.epoch in self._rungs:
                self._pruned.add(trial_id)
                return False
        return not report.failure

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Settle a job that Ray says is over."""
        job = self._running.pop(trial_id)
        report = self._last_report.pop(trial_id, Report(0))
        outcome, reason = self._outcome(trial_id, job, report, error)
        if job.kind == "teacher":
            self._settle_teacher(job, outcome, reason)
        elif job.kind == "trial":
            self._settle_trial(job, outcome, report)
        elif job.kind == "confirm" and outcome == "done":
            confirm.keep_score(job, report.values)
        elif report.exam is not None:
            finals.keep_result(job, report.exam)
        if outcome == "failed":
            self.failures.append(f"{job.key}: {reason}")
        for listener in self._listeners:
            listener.ended(job, outcome, reason)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: `record` has heard of it already."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its arguments into a snapshot that is never read."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study and the sweep's folder are the record, not Ray's snapshot."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""

    def _outcome(self, trial_id: str, job: Job, report: Report, error: bool) -> tuple[Outcome, str]:
        if trial_id in self._pruned:
            return "pruned", ""
        if report.failure:
            return "failed", report.failure
        if error or report.epoch < job.config.epochs or report.phase not in LAST_PHASES[job.kind]:
            return "failed", f"its worker died or raised an error after epoch {report.epoch}"
        return ("reused" if report.phase == "reused" else "done"), ""

    def _settle_teacher(self, job: Job, outcome: Outcome, reason: str) -> None:
        if outcome in self.teachers:
            self.teachers[outcome] += 1
            return
        for queue in (self._waiting, self._references):
            for student in [student for student in queue if student.teacher == job.teacher]:
                queue.remove(student)
                if student.kind == "trial":
                    self._study.finish(_number(student), TrialState.FAIL)
                self.failures.append(f"{student.key}: its teacher failed ({reason})")

    def _settle_trial(self, job: Job, outcome: Outcome, report: Report) -> None:
        states = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        state = states.get(outcome, TrialState.FAIL)
        value = report.values[OBJECTIVE] if state == TrialState.COMPLETE else None
        self._study.finish(_number(job), state, value)

    def _next(self) -> Job | None:
        while True:
            job = self._startable(self._waiting)
            if job is not None:
                return job
            if self._may_ask():
                self._waiting.append(self._trial_job(self._study.ask()))
            elif self._stages and self._stage_is_over():
                self._waiting += self._stages.pop(0)()
            else:
                return self._startable(self._references)

    def _startable(self, queue: list[Job]) -> Job | None:
        """The first job of a queue whose teacher is trained, else the teacher that the first one waits for."""
        for job in queue:
            if not job.teacher or self._is_ready(job.teacher):
                queue.remove(job)
                return job.resumed()
        in_training = {job.teacher for job in self._running.values() if job.kind == "teacher"}
        for job in queue:
            if job.teacher not in in_training:
                return self._teacher_job(job).resumed()
        return None

    def _is_ready(self, teacher: str) -> bool:
        if teacher not in self._teachers_ready and is_trained(Path(teacher)):
            self._teachers_ready.add(teacher)
        return teacher in self._teachers_ready

    def _may_ask(self) -> bool:
        return len(self._waiting) < self._concurrency and self._study.asked() < self._trials

    def _stage_is_over(self) -> bool:
        return not self._waiting and all(job.kind in ("teacher", "final") for job in self._running.values())

    def _confirmations(self) -> list[Job]:
        trials = confirm.candidates(self._study.trials(TrialState.COMPLETE), self._confirmed)
        jobs = confirm.confirmation_jobs(self._base, trials, self._folder)
        return [self._taught(job) for job in jobs if not confirm.score_path(job).exists()]

    def _finalists(self) -> list[Job]:
        config = self.finalist()
        if config is None:
            return []
        jobs = self._without_results(finals.finalist_jobs(config, self._exams, self._folder))
        same = [job.config for job in jobs]
        before = len(self._references)
        self._references = [job for job in self._references if job.config not in same]
        self.final_runs += len(self._references) - before
        return jobs

    def _without_results(self, jobs: list[Job]) -> list[Job]:
        return [self._taught(job) for job in jobs if not finals.result_path(job).exists()]

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


def _number(job: Job) -> int:
    return int(job.key.rpartition("-")[2])
