"""One piece of work for Ray: a teacher, a trial, a confirmation or a final run; and what a worker reports of it."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from ltsd.checkpoint import CheckpointError, load_checkpoint
from ltsd.config import Config
from ltsd.knobs import Value

Kind = Literal["teacher", "trial", "confirm", "final"]
Part = Literal["train", "complete"]
BEGINS = "begins"
FOLDERS = ("checkpoints", "pictures", "verdicts")
"""Where in a sweep's folder its jobs keep files, each under its key."""


@dataclass(frozen=True)
class Job:
    """What a worker is told.

    `key` names the job in its sweep and is the same when it is run again; `part` is the split it trains on;
    `exam` is the AutoAttack of a final run; `teacher` the checkpoint it learns from, or, of a teacher job, the
    one it makes; `resume` a checkpoint of another job to start from, where its own leaves none; `row` the row of the
    comparison whose search it belongs to, "" that of the sweep's own method, or none.
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

    def params(self) -> dict[str, Any]:
        """As one flat dict, Ray's configuration of it: dotted config names beside `job.*`."""
        own = {f"job.{name}": getattr(self, name) for name in _FIELDS}
        return self.config.flatten() | own

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Self:
        """The inverse of `params`."""
        own = {name: params.get(f"job.{name}", "") for name in _FIELDS}
        values: dict[str, Value] = {name: v for name, v in params.items() if not name.startswith("job.")}
        return cls(config=_DEFAULTS.override(values), **own)

    @property
    def checkpoint(self) -> Path:
        """Where its latest checkpoint lies; see `newest_checkpoint`."""
        return Path(self.folder) / "checkpoints" / f"{self.key}.pt"

    @property
    def spare(self) -> Path:
        """Where the checkpoint before that lies, while the job is not over."""
        return self.checkpoint.with_suffix(".previous.pt")

    @property
    def pictures(self) -> Path:
        """Folder of its pictures, where it came to its end."""
        return Path(self.folder) / "pictures" / self.key

    @property
    def verdicts(self) -> Path:
        """Where the verdicts of its exam lie, image by image."""
        return Path(self.folder) / "verdicts" / f"{self.key}.parquet"


@dataclass(frozen=True)
class Report:
    """What a worker tells the driver after an epoch (`phase` is "train") or a part of an exam (its name).

    `values` are metrics by their project names, `per_class` recalls by attack; `exam` comes with the last
    report of a final run, `failure` with the last one of a job that cannot go on, and `halts` where others could not
    either: the disk is full or gone, the machine unfit. The first report of a worker has phase BEGINS, its `host`, and
    in `past` the epochs of the checkpoint that it goes on from: a worker may have been killed before the driver heard
    of the last of them.
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

    def message(self) -> dict[str, "Report"]:
        """The report as `tune.report` takes it: under one key, which Ray leaves as it is."""
        return {REPORT: self}


REPORT = "report"
_DEFAULTS = Config()
_FIELDS = ("kind", "key", "part", "folder", "exam", "teacher", "resume", "row")


def trial_key(row: str, number: int) -> str:
    """The key of a trial of a row's search."""
    return "-".join(filter(None, ("trial", row, f"{number:04d}")))


def rank(score: float | None) -> float:
    """What a score counts for where scores are compared: one that is missing or NaN for less than any other."""
    return -math.inf if score is None or math.isnan(score) else score


def keep_checkpoint(job: Job, save: Callable[[Path], None]) -> None:
    """Write the latest checkpoint of a job; the one before stays beside it, for when the latest is damaged."""
    if job.checkpoint.exists():
        job.checkpoint.replace(job.spare)
    save(job.checkpoint)


def newest_checkpoint(job: Job) -> Path | None:
    """The latest whole checkpoint of a job, else the one that it is to start from; None for a fresh start."""
    for path in (job.checkpoint, job.spare, *([Path(job.resume)] if job.resume else [])):
        try:
            load_checkpoint(path)
        except CheckpointError:
            continue
        return path
    return None


def history(checkpoint: Mapping[str, Any]) -> Iterator[Report]:
    """The epochs that a checkpoint knows, as reports."""
    for epoch in checkpoint["history"]:
        yield Report(epoch["epoch"], values=epoch["values"], per_class=epoch["per_class"])


def drop_previous_checkpoint(job: Job) -> None:
    """Remove the spare checkpoint of a job that is over."""
    job.spare.unlink(missing_ok=True)
