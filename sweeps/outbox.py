"""What goes to MLflow, which may be away: written in order, from a thread of its own, and again until it succeeds."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from sweeps.addresses import without_secret
from sweeps.agreement import repair
from sweeps.jobs import Job, Report
from sweeps.record import JobRecord, Record
from sweeps.tracking import MlflowView, is_outage

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0


class Outbox:
    """A queue of writes. Each must be such that doing it twice is doing it once.

    `is_outage` tells the errors that pass from those that stay: what it says no to is said aloud and left out.
    """

    def __init__(self, name: str, is_outage: Callable[[Exception], bool], say: Callable[[str], None]) -> None:
        self._name, self._is_outage, self._say = name, is_outage, say
        self._writes: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Begin to write what was put, and what will be."""
        self._thread.start()

    def put(self, write: Callable[[], None]) -> None:
        """Have this written after all that was put before."""
        self._writes.put(write)

    def close(self, patience_s: float) -> int:
        """Write what is left, for so long at most; returns how many writes were not done."""
        self._writes.put(None)
        self._thread.join(patience_s)
        self._leaving.set()
        return self._writes.unfinished_tasks - 1

    def _work(self) -> None:
        while (write := self._writes.get()) is not None and not self._leaving.is_set():
            if self._insist(write):
                self._writes.task_done()

    def _insist(self, write: Callable[[], None]) -> bool:
        """Do a write, however often it takes; returns False where the process left before it was done."""
        pause, since = FIRST_PAUSE_S, time.monotonic()
        while True:
            try:
                write()
            except Exception as error:
                if not self._is_outage(error):
                    self._say(f"{self._name}: {error}")
                    return True
                if pause == FIRST_PAUSE_S:
                    self._say(f"{self._name} does not answer; the sweep goes on and what it misses is kept for it")
                if self._leaving.wait(pause):
                    return False
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                if pause > FIRST_PAUSE_S:
                    self._say(f"{self._name} answers again after {time.monotonic() - since:.0f} s")
                return True


class Tracker:
    """A `Listener` that keeps MLflow's view of the sweep up to date and never holds up training."""

    def __init__(self, view: MlflowView, uri: str, say: Callable[[str], None]) -> None:
        self._view, self._uri, self._loud = view, uri, say
        self._outbox = Outbox("MLflow", is_outage, self._say)

    def open(self, record: Record) -> None:
        """Reach MLflow, bring it in line with what is on record already, and go on from there.

        Raises:
            UserError: nothing usable answers at the tracking URI.
        """
        self._view.open()
        self._outbox.put(self._view.describe_sweep)
        if record.jobs:
            repaired = repair(self._view, record)
            if repaired:
                self._say(f"MLflow lacked something of {len(repaired)} jobs and has it now")
        self._outbox.start()

    def started(self, known: JobRecord) -> None:
        """See `Listener`."""
        self._outbox.put(lambda: self._view.start(known))

    def reported(self, known: JobRecord, report: Report) -> None:
        """See `Listener`."""
        if report.values:
            self._outbox.put(lambda: self._view.report(known, report))

    def ended(self, known: JobRecord) -> None:
        """See `Listener`."""
        self._outbox.put(lambda: self._view.end(known))

    def finish(self, metrics: Mapping[str, float], artifacts: Iterable[Path], model: Job | None) -> None:
        """Record how the sweep ended: its numbers and pictures, the finalist's model."""
        at = int(time.time() * 1000)
        self._outbox.put(lambda: self._view.finish(metrics, at, artifacts, model))

    def close(self, status: str, patience_s: float) -> None:
        """Write what is kept, for so long at most, and end the sweep's run with `status`."""
        self._outbox.put(lambda: self._view.close(status))
        left = self._outbox.close(patience_s)
        if left:
            self._say(f"MLflow lacks {left} records; the sweep's folder has all, and a resume or an audit writes them")

    def _say(self, text: str) -> None:
        self._loud(without_secret(text, self._uri))
