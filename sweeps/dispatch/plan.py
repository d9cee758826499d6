"""Which job runs next, of those that a sweep needs and that are not on record yet."""

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

from optuna.trial import TrialState

from ltsd.config import Config
from ltsd.methods import METHODS
from sweeps.findings import confirm, finals
from sweeps.findings.finals import Exams
from sweeps.journal.exchange import Exchange
from sweeps.journal.jobs import Job
from sweeps.journal.record import Record
from sweeps.machines.machine import Machines
from sweeps.settings.objectives import Preference
from sweeps.study.searcher import Proposal, Study
from sweeps.worker.teachers import TeacherStore, is_trained


class Plan:
    """The jobs of a sweep: trials as Optuna proposes them, then the race of the best, then the finalist and the ends of
    the front.

    Trials and confirmations are made from `tried`, final runs from `base`.

    A job whose teacher is not trained waits here, not in a worker, while the teacher and others run. References
    need nothing of the search and fill workers that are idle between its stages. `final_runs` is how many final runs
    this process has to make, as far as is known.
    """

    def __init__(
        self,
        base: Config,
        tried: Config,
        record: Record,
        study: Study,
        store: TeacherStore,
        folder: Path,
        *,
        trials: int,
        confirmed: int,
        preference: Preference,
        exams: Exams,
        machines: Machines,
        exchange: Exchange,
    ) -> None:
        self._base, self._tried, self._record, self._study = base, tried, record, study
        self._store, self._folder = store, folder
        self._trials, self._confirmed, self._preference, self._exams = trials, confirmed, preference, exams
        self._machines, self._exchange = machines, exchange
        self._teachers_ready: set[str] = set()
        turns = [partial(self._confirmations, turn) for turn in range(confirm.SEEDS)]
        self._stages: list[Callable[[], list[Job]]] = [*turns, self._finalists]
        self._waiting = [self._trial_job(proposal) for proposal in study.orphans()]
        references = self._not_done(finals.reference_jobs(base, exams, folder))
        # The finalist may turn out to be the untuned row of the method that is searched: not both are run.
        self._untuned = [job for job in references if trials and job.config.method == base.method]
        self._references = [job for job in references if job not in self._untuned]
        self.final_runs = len(references) + (exams.seeds if trials else 0)

    @property
    def waits(self) -> bool:
        """Whether there are jobs that cannot start before others are over."""
        return bool(self._waiting)

    def next(self, running: Collection[Job]) -> Job | None:
        """The next job beside those that run; None while there is none, or no more."""
        while True:
            job = self._startable(self._waiting, running)
            if job is not None:
                return job
            if self._may_ask():
                self._waiting.append(self._trial_job(self._study.ask()))
            elif self._stages and self._stage_is_over(running):
                self._waiting += self._stages.pop(0)()
            else:
                searching = self._study.asked < self._trials
                return None if searching else self._startable(self._references, running)

    def strike(self, teacher: str) -> list[Job]:
        """Take the students of a teacher off the plan; returns them."""
        struck = [job for job in (*self._waiting, *self._references) if job.teacher == teacher]
        for queue in (self._waiting, self._references):
            queue[:] = [job for job in queue if job.teacher != teacher]
        return struck

    def _startable(self, queue: list[Job], running: Collection[Job]) -> Job | None:
        """The first job of a queue that can start, or the teacher that it waits for where nobody trains it yet."""
        in_training = {job.teacher for job in running if job.kind == "teacher"}
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

    def _stage_is_over(self, running: Collection[Job]) -> bool:
        return not self._waiting and all(job.kind in ("teacher", "final") for job in running)

    def _confirmations(self, turn: int) -> list[Job]:
        found = confirm.scores(self._record, self._study.objectives)
        complete = self._study.trials(TrialState.COMPLETE)
        trials = confirm.contenders(complete, found, self._confirmed, turn, self._preference)
        return self._not_done(confirm.confirmation_jobs(self._tried, trials, turn, self._folder, self._exchange))

    def _finalists(self) -> list[Job]:
        choice = confirm.Choice.of(self._record, self._study.objectives, self._preference)
        wanted = []
        if choice.finalist is not None:
            config = self._config_of(choice.finalist)
            wanted = finals.finalist_jobs(choice.finalist, config, self._exams, self._folder)
        for name, end in choice.ends.items():
            wanted += finals.end_jobs(name, end, self._config_of(end), self._exams, self._folder)
        wanted = [self._taught(job) for job in wanted]
        jobs = [job for job in wanted if not self._record.is_done(job)]
        untuned = [job for job in self._untuned if job.config not in [job.config for job in wanted]]
        self._references += untuned
        expected = len(self._untuned) + (self._exams.seeds if self._trials else 0)
        self.final_runs += len(untuned) + len(jobs) - expected
        return jobs

    def _config_of(self, trial: int) -> Config:
        return self._base.override(self._study.trials()[trial].params)

    def _not_done(self, jobs: list[Job]) -> list[Job]:
        return [self._taught(job) for job in jobs if not self._record.is_done(job)]

    def _trial_job(self, proposal: Proposal) -> Job:
        config = self._tried.override(proposal.params)
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
