"""A queue of writes to services that may be down: a thread does them in order and retries until they succeed."""

import threading
import time
from collections.abc import Callable

GATHERED_S = 1.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0


class Outbox:
    """Waiting writes, by subject. Each must be idempotent.

    `is_outage` returns whether an error is temporary. A write with a permanent error is reported and dropped.
    """

    def __init__(self, name: str, is_outage: Callable[[Exception], bool], say: Callable[[str], None]) -> None:
        self._name, self._is_outage, self._say = name, is_outage, say
        self._waiting: dict[str, Callable[[], None]] = {}
        self._changed = threading.Condition()
        self._closing, self._leaving = False, threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread that does the writes."""
        self._thread.start()

    def put(self, about: str, write: Callable[[], None]) -> None:
        """Queue a write after all others, or in the place of the waiting write about the same subject."""
        with self._changed:
            self._waiting[about] = write
            self._changed.notify()

    def close(self, patience_s: float) -> int:
        """Write the rest, for at most `patience_s`; return how many writes were not done."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(patience_s)
        self._leaving.set()
        return len(self._waiting)

    def _work(self) -> None:
        while batch := self._gather():
            if not all(map(self._insist, batch)):
                return

    def _gather(self) -> list[str]:
        """Wait for writes, and return their subjects, oldest first; none if no more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            self._changed.wait_for(lambda: self._closing, GATHERED_S)
            return list(self._waiting)

    def _insist(self, about: str) -> bool:
        """Retry a write until it succeeds; return False if the process exits first."""
        pause, since = FIRST_PAUSE_S, time.monotonic()
        while not self._write(about):
            if pause == FIRST_PAUSE_S:
                self._say(f"{self._name} does not answer; the sweep goes on and what it misses is kept for it")
            if self._leaving.wait(pause):
                return False
            pause = min(2 * pause, LONGEST_PAUSE_S)
        if pause > FIRST_PAUSE_S:
            self._say(f"{self._name} answers again after {time.monotonic() - since:.0f} s")
        return True

    def _write(self, about: str) -> bool:
        """Try the waiting write of a subject once; return False if it must be retried."""
        write = self._waiting[about]
        try:
            write()
        except Exception as error:
            if self._is_outage(error):
                return False
            self._say(f"{self._name}: {error}")
        with self._changed:
            if self._waiting[about] is write:
                del self._waiting[about]
        return True
