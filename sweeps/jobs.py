"""One piece of work for Ray: a teacher, a trial, a confirmation or a final run; and what a worker reports of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from ltsd.checkpoint import CheckpointError, load_checkpoint
from ltsd.config import Config, Value

Kind = Literal["teacher", "trial", "confirm", "final"]
Part = Literal["train", "complete"]
CHECKPOINT_FILE = "checkpoint.pt"


@dataclass(frozen=True)
class Job:
    """What a worker is told.

    `key` names the job in its sweep and is the same when it is run again; `part` is the split it trains on;
    `exam` is the AutoAttack of a final run; `teacher` the checkpoint it learns from, or, of a teacher job, the
    one it makes; `resume` the checkpoint to go on from, where an earlier attempt left one.
    """

    kind: Kind
    key: str
    config: Config
    part: Part
    folder: str
    exam: str = ""
    teacher: str = ""
    resume: str = ""

    def params(self) -> dict[str, Any]:
        """As one flat dict, Ray's configuration of it: dotted config names beside `job.*`."""
        own = {f"job.{name}": getattr(self, name) for name in _FIELDS}
        return self.config.flatten() | own

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Self:
        """The inverse of `params`."""
        own = {name: params[f"job.{name}"] for name in _FIELDS}
        values: dict[str, Value] = {name: v for name, v in params.items() if not name.startswith("job.")}
        return cls(config=Config().override(values), **own)

    def resumed(self) -> Self:
        """The job, set to go on from the newest whole checkpoint that any earlier attempt left."""
        return replace(self, resume=newest_checkpoint(Path(self.folder), self.key) or self.resume)


@dataclass(frozen=True)
class Report:
    """What a worker tells the driver after an epoch (`phase` is "train") or a part of an exam (its name).

    `values` are metrics by their project names, `per_class` recalls by attack; `exam` comes with the last
    report of a final run, `failure` with the last one of a job that cannot go on.
    """

    epoch: int
    phase: str = "train"
    values: Mapping[str, float] = field(default_factory=dict)
    per_class: Mapping[str, list[float]] = field(default_factory=dict)
    exam: Mapping[str, Any] | None = None
    failure: str = ""

    def message(self) -> dict[str, "Report"]:
        """The report as `tune.report` takes it: under one key, which Ray leaves as it is."""
        return {REPORT: self}


REPORT = "report"
_FIELDS = ("kind", "key", "part", "folder", "exam", "teacher", "resume")


def newest_checkpoint(folder: Path, key: str) -> str:
    """The checkpoint of the latest epoch of a job under `<folder>/ray`, skipping damaged ones; "" for none."""
    best, epochs = "", 0
    for path in sorted((folder / "ray").glob(f"*/{key}/checkpoint_*/{CHECKPOINT_FILE}")):
        try:
            done = len(load_checkpoint(path)["history"])
        except CheckpointError:
            continue
        if done >= epochs:
            best, epochs = str(path), done
    return best


def final_model(job: Job) -> Path:
    """Where the finished model of a final run lies."""
    return Path(job.folder) / "finals" / f"{job.key}.pt"
