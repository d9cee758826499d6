"""One piece of work for Ray (a teacher, a trial, a confirmation, a final run, a shard of its exam), and a worker's
reports of it.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from ltsd.checkpoint import CheckpointError, load_checkpoint
from ltsd.config import Config
from ltsd.evaluation.shards import folder_of_shards
from ltsd.knobs import Value

Kind = Literal["teacher", "trial", "confirm", "final", "shard"]
Part = Literal["train", "complete"]
BEGINS = "begins"
FOLDERS = ("checkpoints", "pictures", "correctness")
"""The folders in a sweep's folder in which jobs keep files under their keys."""


@dataclass(frozen=True)
class Job:
    """The work of a worker.

    Attributes:
        kind: of work.
        key: the name of the job in its sweep; it stays the same when the job runs again.
        config: of the training run.
        part: the split to train on.
        folder: of the sweep.
        exam: the ensemble of attacks in the exam of a final run.
        teacher: the checkpoint of the teacher to learn from or, for a teacher job, to make.
        resume: the checkpoint of another job to start from if the job has none of its own; "" for none.
        row: the row to whose search the job belongs; "" for the sweep's own method, or no search.
        shard: the shard that a helper attacks; such a job has the key of the final run.
    """

    kind: Kind
    key: str
    config: Config
    part: Part
    folder: str
    exam: str = ""
    teacher: str = ""
    resume: str = ""
    row: str = ""
    shard: str = ""

    def params(self) -> dict[str, Any]:
        """Return the job as one flat dict, Ray's configuration: dotted config names and, for other fields, `job.*`."""
        own = {f"job.{name}": getattr(self, name) for name in _FIELDS}
        return self.config.flatten() | own

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Self:
        """Invert `params`."""
        own = {name: params.get(f"job.{name}", "") for name in _FIELDS}
        values: dict[str, Value] = {name: v for name, v in params.items() if not name.startswith("job.")}
        return cls(config=_DEFAULTS.override(values), **own)

    def for_shard(self, name: str) -> Self:
        """Return the job that attacks a shard of this final run's exam."""
        return replace(self, kind="shard", shard=name)

    @property
    def title(self) -> str:
        """Its key, with its shard."""
        return "-".join(filter(None, (self.key, self.shard)))

    @property
    def checkpoint(self) -> Path:
        """Path of its latest checkpoint; see `newest_checkpoint`."""
        return Path(self.folder) / "checkpoints" / f"{self.key}.pt"

    @property
    def spare(self) -> Path:
        """Path of the checkpoint before the latest one, while the job is not over."""
        return self.checkpoint.with_suffix(".previous.pt")

    @property
    def pictures(self) -> Path:
        """Folder of its pictures; they exist if it ended without an error."""
        return Path(self.folder) / "pictures" / self.key

    @property
    def card(self) -> Path:
        """Path of its model card, if it is a final run of a finalist."""
        return self.checkpoint.with_suffix(".md")

    @property
    def correctness(self) -> Path:
        """Path of the correctness file of its exam."""
        return Path(self.folder) / "correctness" / f"{self.key}.parquet"

    @property
    def shards(self) -> Path:
        """Folder of the shards of its exam, while it lasts."""
        return folder_of_shards(self.correctness)


@dataclass(frozen=True)
class Report:
    """The message of a worker to the driver, after its start, an epoch or a part of an exam.

    Attributes:
        epoch: the last finished epoch.
        phase: BEGINS in the first report of a worker, "train" after an epoch, else what was done, such as a part of the
            exam.
        values: metrics by their project names, fractions in [0, 1] or losses.
        per_class: scores of every class, by attack.
        exam: the results, in the last report of a final run.
        failure: the reason, in the last report of a job that cannot continue.
        halts: whether no other job could continue either, because the disk is full or gone, or the machine is unfit.
        host: the address of the machine, in the first report of a worker.
        past: in that report, the epochs of the checkpoint from which the worker continues. An earlier worker may have
            been killed before it reported the last of them.
        left: the shards of the exam that other workers can attack now.
        usage: what the worker used of its machine in an epoch, by metric.
    """

    epoch: int
    phase: str = "train"
    values: Mapping[str, float] = field(default_factory=dict)
    per_class: Mapping[str, list[float]] = field(default_factory=dict)
    exam: Mapping[str, Any] | None = None
    failure: str = ""
    halts: bool = False
    host: str = ""
    past: tuple["Report", ...] = ()
    left: tuple[str, ...] = ()
    usage: Mapping[str, float] = field(default_factory=dict, compare=False)

    def message(self) -> dict[str, "Report"]:
        """Return the report for `tune.report`: under one key, which Ray does not change."""
        return {REPORT: self}


REPORT = "report"
_DEFAULTS = Config()
_FIELDS = ("kind", "key", "part", "folder", "exam", "teacher", "resume", "row", "shard")


def trial_key(row: str, number: int) -> str:
    """Return the key of a trial in a row's search."""
    return "-".join(filter(None, ("trial", row, f"{number:04d}")))


def rank(score: float | None) -> float:
    """Return a score for comparisons; None and NaN become -inf."""
    return -math.inf if score is None or math.isnan(score) else score


def keep_checkpoint(job: Job, save: Callable[[Path], None]) -> None:
    """Write the latest checkpoint of a job; keep the one before beside it, in case the latest is damaged."""
    if job.checkpoint.exists():
        job.checkpoint.replace(job.spare)
    save(job.checkpoint)


def newest_checkpoint(job: Job) -> Path | None:
    """Return the latest intact checkpoint of a job, or the one to start from; None for a fresh start."""
    for path in (job.checkpoint, job.spare, *([Path(job.resume)] if job.resume else [])):
        try:
            load_checkpoint(path)
        except CheckpointError:
            continue
        return path
    return None


def history(checkpoint: Mapping[str, Any]) -> Iterator[Report]:
    """Yield the epochs of a checkpoint as reports."""
    for epoch in checkpoint["history"]:
        yield Report(epoch["epoch"], values=epoch["values"], per_class=epoch["per_class"])


def drop_previous_checkpoint(job: Job) -> None:
    """Remove the spare checkpoint of a finished job."""
    job.spare.unlink(missing_ok=True)
