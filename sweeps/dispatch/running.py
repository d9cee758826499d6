"""A job that Ray runs: what its workers reported, and what follows from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ltsd.tasks import metric
from sweeps.journal.jobs import Job, Kind, Report
from sweeps.journal.record import Outcome
from sweeps.study.searcher import VALIDATED, is_scored

DEATHS = 5
LAST_PHASES: Mapping[Kind, tuple[str, ...]] = {
    "teacher": ("train", "reused"),
    "trial": ("train",),
    "confirm": ("confirmed",),
    "final": ("examined",),
}


@dataclass
class Running:
    """A job that Ray runs, and what its workers reported.

    Attributes:
        job: the job.
        last: the last report.
        begun: whether a worker has started it.
        is_poor: whether the trial was in the worse half at a rung.
        deaths: consecutive workers that died in it without a new epoch.
        silent: consecutive workers that died since the last report.
        begun_after: the epoch from which the last worker continued.
        host: the address of that worker's machine.
        given: the shards of its exam that other workers were given.
    """

    job: Job
    last: Report = field(default_factory=lambda: Report(0))
    begun: bool = False
    is_poor: bool = False
    deaths: int = 0
    silent: int = 0
    begun_after: int = -1
    host: str = ""
    given: set[str] = field(default_factory=set)

    def outcome(self) -> tuple[Outcome, str]:
        """Return how the job ended, and the reason if it failed."""
        if self.is_poor:
            return "pruned", ""
        if self.last.failure:
            return "failed", self.last.failure
        if self.deaths > DEATHS:
            return "failed", f"{self.deaths} workers in a row died after epoch {self.last.epoch}"
        if self.silent > DEATHS:
            return "failed", f"{self.silent} workers in a row died without a report in between"
        if self.last.epoch < self.job.config.epochs or self.last.phase not in LAST_PHASES[self.job.kind]:
            return "failed", f"it ended after epoch {self.last.epoch} of {self.job.config.epochs}"
        if self.job.kind == "trial" and not is_scored(self.job, self.last):
            score = metric(self.job.config, VALIDATED)
            return "failed", f"its last {score} is {self.last.values.get(score)}, which cannot be compared"
        return ("reused" if self.last.phase == "reused" else "done"), ""
