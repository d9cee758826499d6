"""Idle workers help with exams: they attack shards for the workers of final runs."""

from collections.abc import Collection

from sweeps.dispatch.running import Running
from sweeps.journal.jobs import Job


def helping_job(running: Collection[Running]) -> Job | None:
    """Return the job of a shard that nobody attacks yet, of the exam that lacks most; None if there is none.

    The worker of the final run attacks them from the first on, helpers from the last. Nothing depends on a helper: a
    shard that it leaves undone, the final run's worker attacks itself. So no such job is on record.
    """
    lacking = [
        (one, [name for name in one.last.left if name not in one.given]) for one in running if one.job.kind == "final"
    ]
    final, names = max(lacking, key=lambda of_one: len(of_one[1]), default=(None, []))
    if final is None or not names:
        return None
    final.given.add(names[-1])
    return final.job.for_shard(names[-1])
