"""Idle workers help with exams: they attack shards for the workers of final runs."""

from collections.abc import Collection

from sweeps.dispatch.running import Running
from sweeps.journal.jobs import Job


def helping_job(running: Collection[Running]) -> Job | None:
    """Return the job of a shard that no worker attacks yet, from the exam with most of these; None if there is none.

    The worker of the final run begins with the first shard, helpers with the last. The worker also attacks shards that
    a helper leaves undone. So nothing depends on a helper, and its jobs are not on record.
    """
    lacking = [
        (one, [name for name in one.last.left if name not in one.given]) for one in running if one.job.kind == "final"
    ]
    final, names = max(lacking, key=lambda of_one: len(of_one[1]), default=(None, []))
    if final is None or not names:
        return None
    final.given.add(names[-1])
    return final.job.for_shard(names[-1])
