"""Decide which jobs can start: a student waits for its teacher here, not in a worker."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from ltsd.methods import METHODS
from sweeps.journal.exchange import Exchange
from sweeps.journal.jobs import Job
from sweeps.worker.teachers import TeacherStore, is_trained


class Teaching:
    """The teachers of students, and which of them are trained."""

    def __init__(self, store: TeacherStore, folder: Path, exchange: Exchange) -> None:
        self._store, self._folder, self._exchange = store, folder, exchange
        self._trained: set[str] = set()

    def taught(self, job: Job) -> Job:
        """Return the job with the path of its teacher, and with the teacher's gamma in its configuration."""
        if not METHODS[job.config.method].needs_teacher:
            return job
        teacher = self._teacher_job(job)
        gamma = teacher.config.balance.teacher_gamma
        return replace(job, teacher=teacher.teacher, config=job.config.override({"balance.teacher_gamma": gamma}))

    def take(self, queue: list[Job], running: Collection[Job]) -> Job | None:
        """Take the first job of a queue that can start; None if there is none. For a student whose teacher is neither
        trained nor in training, return the teacher's job and leave the student in the queue.
        """
        in_training = {job.teacher for job in running if job.kind == "teacher"}
        for job in queue:
            if job.teacher in in_training:
                continue
            if job.teacher and not self._is_trained(job.teacher):
                return self._teacher_job(job)
            queue.remove(job)
            return job
        return None

    def _is_trained(self, teacher: str) -> bool:
        path = Path(teacher)
        if teacher not in self._trained and self._exchange.bring(path) and is_trained(path):
            self._trained.add(teacher)
        return teacher in self._trained

    def _teacher_job(self, student: Job) -> Job:
        return self._store.job(student.config, student.part, self._folder)
