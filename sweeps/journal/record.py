"""The record of a sweep: what was proposed, started, measured and decided, in order.

The journal in the sweep's folder is the only source of truth. Each event is a line that is on disk before anything acts
on it. Optuna's study, MLflow's runs, the table and the pictures are views, which are rebuilt from it if they are lost.
"""

import dataclasses
import errno
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from ltsd.checkpoint import load_checkpoint
from ltsd.evaluation.evaluate import overfits_catastrophically
from ltsd.files import publishing
from ltsd.knobs import Value
from ltsd.tasks import metric
from sweeps.journal.exchange import Exchange
from sweeps.journal.jobs import Job, Report, history, newest_checkpoint
from sweeps.settings.sweep import JOURNAL_FILE

Outcome = Literal["done", "reused", "pruned", "failed"]


@dataclass
class JobRecord:
    """Everything on record of a job. Times are milliseconds since 1970; `outcome` is None while the job is not over.

    `epochs` are its training reports by epoch, `result` is the confirmation or exam at its end. `redone` counts the
    epochs that a worker repeated, `hosts` are the addresses of the machines that worked on it, in turn.
    """

    job: Job
    started: int
    redone: int = 0
    hosts: list[str] = field(default_factory=list)
    epochs: dict[int, Report] = field(default_factory=dict)
    reported: dict[int, int] = field(default_factory=dict)
    result: Report | None = None
    measured: int = 0
    outcome: Outcome | None = None
    reason: str = ""
    ended: int = 0

    def copy(self) -> Self:
        """Return a snapshot for another thread."""
        return dataclasses.replace(self, hosts=[*self.hosts], epochs=dict(self.epochs), reported=dict(self.reported))

    @property
    def last_epoch(self) -> int:
        """The latest reported epoch; 0 for none."""
        return max(self.epochs, default=0)

    @property
    def warning(self) -> str:
        """The reasons to doubt its numbers: the first epoch of catastrophic overfitting, or the doubts of its exam; ""
        for none.
        """
        for epoch, report in self.epochs.items():
            fgsm, pgd = (report.values.get(metric(self.job.config, f"val/{name}")) for name in ("fgsm", "pgd"))
            if fgsm is not None and pgd is not None and overfits_catastrophically(fgsm, pgd):
                return f"catastrophic overfitting at epoch {epoch}: FGSM {100 * fgsm:.0f}%, PGD {100 * pgd:.0f}%"
        exam = self.result.exam if self.result is not None else None
        return "; ".join(exam.get("doubts", ())) if exam is not None else ""


class Record:
    """A sweep's journal and what follows from it.

    `damaged` are the numbers of lines whose checksum does not match. A last line that a kill cut short is not among
    them: nothing has acted on it.
    """

    def __init__(self, path: Path) -> None:
        self._proposals: dict[str, dict[int, dict[str, Value]]] = {}
        self.jobs: dict[str, JobRecord] = {}
        self._path, self._file, self._size = path, -1, 0
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        events = [_decode(line) for line in lines]
        self.damaged = [number for number, event in enumerate(events, 1) if event is None]
        for event in filter(None, events):
            self._take(event)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the record as its file is now; another process may be writing."""
        return cls(folder / JOURNAL_FILE)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the record for writing. If the journal is damaged, keep a copy and continue with its intact lines."""
        path = folder / JOURNAL_FILE
        record = cls(path)
        content = path.read_bytes() if path.exists() else b""
        whole = b"".join(line + b"\n" for line in content.split(b"\n")[:-1] if _decode(line) is not None)
        if record.damaged:
            with publishing(path.with_suffix(f".damaged-{time.time_ns()}")) as temporary:
                temporary.write_bytes(content)
        if record.damaged or whole != content or not path.exists():
            with publishing(path) as temporary:
                temporary.write_bytes(whole)
        record._file, record._size = os.open(path, os.O_WRONLY | os.O_APPEND), len(whole)
        return record

    def proposals(self, row: str = "") -> dict[int, dict[str, Value]]:
        """Return the points that Optuna proposed in the search of a row, by trial number."""
        return self._proposals.get(row, {})

    def proposed(self, number: int, params: Mapping[str, Value], row: str = "") -> None:
        """Record that Optuna proposed a trial in the search of a row."""
        if number not in self.proposals(row):
            self._append({"what": "proposed", "row": row, "trial": number, "params": dict(params)})

    def started(self, job: Job, after: int, host: str = "") -> None:
        """Record that a worker on a host started a job, from its beginning or after an epoch."""
        self._append({"what": "started", "job": job.key, "after": after, "host": host, "params": job.params()})

    def reported(self, job: Job, report: Report) -> bool:
        """Record a measurement; return whether it was new. A repeated epoch is not."""
        known = self.jobs[job.key]
        if not report.values or report == known.result or (report.phase == "train" and report.epoch in known.epochs):
            return False
        self._append({"what": "reported", "job": job.key, "report": dataclasses.asdict(report)})
        return True

    def ended(self, job: Job, outcome: Outcome, reason: str) -> None:
        """Record the end of a job."""
        self._append({"what": "ended", "job": job.key, "outcome": outcome, "reason": reason})

    def of_kind(self, kind: str, row: str | None = None) -> Iterator[JobRecord]:
        """Return the jobs of a kind, of one row's search or of all, in the order in which they started."""
        return (k for k in self.jobs.values() if k.job.kind == kind and row in (None, k.job.row))

    def is_done(self, job: Job) -> bool:
        """Return whether a job ended well, with its result, and need not run again."""
        known = self.jobs.get(job.key)
        if known is None or known.outcome not in ("done", "reused"):
            return False
        return job.kind in ("trial", "teacher") or known.result is not None

    def _append(self, event: dict[str, Any]) -> None:
        event = {"at": int(time.time() * 1000)} | event
        line = _encode(event)
        try:
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            os.fsync(self._file)
        except OSError:
            os.truncate(self._path, self._size)
            raise
        self._size += len(line)
        self._take(event)

    def _take(self, event: Mapping[str, Any]) -> None:
        what, at = event["what"], event["at"]
        if what == "proposed":
            self._proposals.setdefault(event.get("row", ""), {})[event["trial"]] = event["params"]
        elif what == "started":
            job = Job.of(event["params"] | {"job.folder": str(self._path.parent.absolute())})
            known = self.jobs.setdefault(job.key, JobRecord(job, at))
            known.outcome = None
            known.redone += max(0, known.last_epoch - event["after"])
            known.hosts += filter(None, [event.get("host")])
        elif event["job"] in self.jobs:
            self._take_of_job(self.jobs[event["job"]], event, at)

    @staticmethod
    def _take_of_job(known: JobRecord, event: Mapping[str, Any], at: int) -> None:
        if event["what"] == "ended":
            known.outcome, known.reason, known.ended = event["outcome"], event["reason"], at
            return
        report = Report(**event["report"] | {"past": (), "left": ()})
        if report.phase == "train":
            known.epochs[report.epoch], known.reported[report.epoch] = report, at
        else:
            known.result, known.measured = report, at


def open_mended(folder: Path, exchange: Exchange) -> tuple[Record, str]:
    """Open the record for writing; recover the epochs that a damaged journal lost from the checkpoints.

    Returns:
        The record, and a sentence about the repair; "" if there was none.
    """
    record = Record.open(folder)
    if not record.damaged:
        return record, ""
    for known in record.jobs.values():
        fill_from_checkpoint(record, known.job, exchange)
    lines = ", ".join(map(str, record.damaged))
    record.damaged = []
    return record, f"{folder / JOURNAL_FILE} was damaged in line {lines}: what it lost is taken from checkpoints"


def fill_from_checkpoint(record: Record, job: Job, exchange: Exchange) -> None:
    """Record the epochs that are in a job's newest checkpoint but not on record."""
    for report in epochs_kept(job, exchange):
        record.reported(job, report)


def epochs_kept(job: Job, exchange: Exchange) -> list[Report]:
    """Return the epochs of a job's newest intact checkpoint; [] without one."""
    with exchange.at_hand(job) as (here, _):
        path = newest_checkpoint(here)
        return list(history(load_checkpoint(path))) if path else []


def _encode(event: Mapping[str, Any]) -> bytes:
    text = json.dumps(event).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _decode(line: bytes) -> dict[str, Any] | None:
    """Return the event of a line; None if its checksum does not match."""
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    event: dict[str, Any] = json.loads(text)
    return event
