"""Choose the next job: one that the sweep needs and that is not on record yet."""

from collections.abc import Collection, Sequence

from sweeps.dispatch import final_runs
from sweeps.dispatch.stages import Stages
from sweeps.dispatch.teaching import Teaching
from sweeps.journal.exchange import Exchange
from sweeps.journal.jobs import Job
from sweeps.journal.record import Record
from sweeps.machines.machine import Machines
from sweeps.settings.sweep import Sweep
from sweeps.study.search import Search
from sweeps.worker.teachers import TeacherStore


class Plan:
    """The jobs of a sweep: its searches and the references.

    A worker that is idle between two stages of a search continues with the next search. References depend on no search
    and come last.
    """

    def __init__(
        self,
        sweep: Sweep,
        searches: Sequence[Search],
        record: Record,
        store: TeacherStore,
        machines: Machines,
        exchange: Exchange,
    ) -> None:
        settings, base = sweep.settings, sweep.base
        self._teaching = Teaching(store, settings.folder.absolute(), exchange)
        self._references: list[Job] = []
        left = [job for job in final_runs.reference_jobs(sweep) if not record.is_done(job)]
        self._searches: list[Stages] = []
        for search in searches if settings.trials else ():
            untuned = [job for job in left if final_runs.is_of_row(job, search.row or base.method)]
            left = [job for job in left if job not in untuned]
            stages = Stages(
                sweep,
                search,
                record,
                self._teaching,
                untuned=[self._teaching.taught(job) for job in untuned],
                references=self._references,
                machines=machines,
                exchange=exchange,
            )
            self._searches.append(stages)
        self._references += [self._teaching.taught(job) for job in left]
        self._plain_runs = len(left)

    @property
    def final_runs(self) -> int:
        """Number of final runs that this process has to make, as far as known."""
        return self._plain_runs + sum(search.final_runs for search in self._searches)

    def next(self, running: Collection[Job]) -> Job | None:
        """Return the next job in addition to the running ones; None if there is none now, or no more."""
        for search in self._searches:
            job = search.next(running)
            if job is not None:
                return job
        if any(search.is_searching for search in self._searches):
            return None
        return self._teaching.take(self._references, running)

    def put_back(self, job: Job) -> None:
        """Take back a job that was handed out and has not ended; it is next again. A teacher's job is not taken back:
        its student makes it again.
        """
        own = [search.waiting for search in self._searches if search.row == job.row and job.kind != "final"]
        if job.kind != "teacher":
            (own[0] if own else self._references).insert(0, job)

    def strike(self, teacher: str) -> list[Job]:
        """Remove the students of a teacher from the plan; return them."""
        queues = [self._references, *(search.waiting for search in self._searches)]
        struck = [job for queue in queues for job in queue if job.teacher == teacher]
        for queue in queues:
            queue[:] = [job for job in queue if job.teacher != teacher]
        return struck
