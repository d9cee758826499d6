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
"""Where in a sweep's folder its jobs keep files, each under its key."""


@dataclass(frozen=True)
class Job:
    """What a worker has to do.

    `key` names the job in its sweep and stays the same when it runs again. `part` is the split to train on, `exam` the
    AutoAttack of a final run. `teacher` is the checkpoint to learn from or, for a teacher job, the one to make.
    `resume` is a checkpoint of another job to start from if its own leaves none. `row` is the row whose search it
    belongs to; "" is the sweep's own method, or none. `shard` is the shard of an exam that a worker attacks for that of
    the final run, whose key the job has.
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
        """Return the job as one flat dict, Ray's configuration: dotted config names beside `job.*`."""
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
        """Path of the checkpoint before that, while the job is not over."""
        return self.checkpoint.with_suffix(".previous.pt")

    @property
    def pictures(self) -> Path:
        """Folder of its pictures, if it came to its end."""
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
    """What a worker tells the driver after an epoch (`phase` is "train") or a part of an exam (its name).

    `values` are metrics by their project names, `per_class` recalls by attack. `exam` comes with the last report of a
    final run, `failure` with the last one of a job that cannot continue, and `halts` if no other job could either: the
    disk is full or gone, the machine unfit. The first report of a worker has the phase BEGINS, its `host`, and in
    `past` the epochs of the checkpoint that it continues from: a worker may have been killed before the driver heard of
    the last of them. `left` names shards of an exam that other workers can attack meanwhile. `usage` is what the
    worker used of its machine in an epoch.
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
    usage: Mapping[str, float] = field(default_factory=dict)

    def message(self) -> dict[str, "Report"]:
        """Return the report as `tune.report` takes it: under one key, which Ray leaves alone."""
        return {REPORT: self}


REPORT = "report"
_DEFAULTS = Config()
_FIELDS = ("kind", "key", "part", "folder", "exam", "teacher", "resume", "row", "shard")


def trial_key(row: str, number: int) -> str:
    """Return the key of a trial in a row's search."""
    return "-".join(filter(None, ("trial", row, f"{number:04d}")))


def rank(score: float | None) -> float:
    """Return a score for comparisons: a missing one, or NaN, counts less than any other."""
    return -math.inf if score is None or math.isnan(score) else score


def keep_checkpoint(job: Job, save: Callable[[Path], None]) -> None:
    """Write the latest checkpoint of a job; keep the one before beside it, in case the latest is damaged."""
    if job.checkpoint.exists():
        job.checkpoint.replace(job.spare)
    save(job.checkpoint)


def newest_checkpoint(job: Job) -> Path | None:
    """Return the latest whole checkpoint of a job, or the one to start from; None for a fresh start."""
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
