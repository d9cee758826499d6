"""The teacher store: a teacher is addressed by everything that shapes it, trained once, and shared by all sweeps."""

import hashlib
import json
from pathlib import Path

import torch
from filelock import FileLock

from ltsd.checkpoint import CheckpointError, load_checkpoint
from ltsd.config import Config
from ltsd.data import Splits
from ltsd.models import library_of
from ltsd.models.weights import content_of
from ltsd.runs import WHEREABOUTS
from ltsd.teacher import teacher_config, teacher_gamma
from sweeps.journal.exchange import Exchange
from sweeps.journal.jobs import Job, Part
from sweeps.journal.record import Record, fill_from_checkpoint
from sweeps.settings.sweep import TEACHERS
from sweeps.worker.stage_code import stage_code


class TeacherStore:
    """A folder of teachers, `<digest>.pt` each, beside the sweeps of a storage."""

    def __init__(self, storage: Path, splits: Splits) -> None:
        self._folder = storage.absolute() / TEACHERS
        self._splits = splits

    def job(self, student: Config, part: Part, folder: Path) -> Job:
        """Return the job that makes the teacher of a student; equal teachers give equal jobs."""
        config = teacher_config(student, teacher_gamma(student, self._splits.imbalance_ratio))
        digest = self._digest(config, part)
        path = self._folder / f"{digest}.pt"
        return Job("teacher", f"teacher-{digest[:12]}", config, part, str(folder), teacher=str(path))

    def _digest(self, config: Config, part: Part) -> str:
        rows = (self._splits.train if part == "train" else self._splits.complete).rows
        knobs = {name: value for name, value in config.flatten().items() if name not in WHEREABOUTS}
        shaping = knobs | {
            "data.source": self._splits.fingerprint,
            "model.weights": content_of(config.model.weights),
            "model.library": library_of(config.model),
            "rows": hashlib.sha256(rows.numpy().tobytes()).hexdigest(),
            "code": stage_code(),
            "torch": torch.__version__,
        }
        return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def is_trained(path: Path) -> bool:
    """Return whether an intact teacher is at `path`; remove a damaged one, so that it is trained again."""
    if not path.exists():
        return False
    try:
        load_checkpoint(path)
    except CheckpointError:
        path.unlink(missing_ok=True)
        return False
    return True


def settle_teachers(record: Record, exchange: Exchange) -> None:
    """Record the end of teachers that are in the store but whose driver was killed before it could record it."""
    for known in list(record.of_kind("teacher")):
        path = Path(known.job.teacher)
        if known.outcome is None and exchange.bring(path) and is_trained(path):
            fill_from_checkpoint(record, known.job, exchange)
            record.ended(known.job, "done" if known.last_epoch == known.job.config.epochs else "reused", "")


def training_lock(path: Path) -> FileLock:
    """Return the lock of the process that trains the teacher at `path`; it is released if that process dies.

    It does not reach machines that exchange files by a bucket: there, two sweeps at a time may train the same teacher.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_suffix(".lock"))
