"""The journal in the bucket, from which a sweep continues if the head node's disk is lost.

It is published shortly after a job starts or ends, and when the driver exits. A restored journal may lack the latest
events. Jobs in it continue from their checkpoints, which may be newer than the journal; jobs that are not in it start
again.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ltsd.errors import UserError
from sweeps.journal.exchange import Exchange, SharedBucket, exchange_of
from sweeps.journal.jobs import Report
from sweeps.journal.outbox import Outbox
from sweeps.journal.record import JobRecord, Record
from sweeps.settings.flags import Settings
from sweeps.settings.sweep import JOURNAL_FILE, SETTINGS_FILE


class Safe:
    """A `Listener` that publishes the journal and never holds up the sweep."""

    def __init__(self, exchange: Exchange, folder: Path, say: Callable[[str], None]) -> None:
        self._exchange, self._folder, self._say = exchange, folder.absolute(), say
        self._published = -1
        self._outbox = Outbox("the bucket", lambda error: isinstance(error, OSError), say)
        self._outbox.put(SETTINGS_FILE, self._publish_settings)
        self._outbox.start()

    def started(self, known: JobRecord) -> None:
        """See `Listener`."""
        self._outbox.put(JOURNAL_FILE, self._publish)

    def reported(self, known: JobRecord, report: Report) -> None:
        """Do nothing: the checkpoint is in the bucket."""

    def ended(self, known: JobRecord) -> None:
        """See `Listener`."""
        self._outbox.put(JOURNAL_FILE, self._publish)

    def close(self, patience_s: float) -> None:
        """Publish the journal as it is, unless that takes longer than `patience_s`."""
        self._outbox.put(JOURNAL_FILE, self._publish)
        if self._outbox.close(patience_s):
            self._say("the bucket lacks the end of the journal; the sweep's folder has it, and a resume publishes it")

    def _publish_settings(self) -> None:
        self._exchange.publish(self._folder / SETTINGS_FILE, self._size())

    def _publish(self) -> None:
        size = self._size()
        if size != self._published:
            self._exchange.publish(self._folder / JOURNAL_FILE, size)
            self._published = size

    def _size(self) -> int:
        return (self._folder / JOURNAL_FILE).stat().st_size


def fetch(given: Mapping[str, Any]) -> None:
    """Restore the folder of a sweep from its bucket if this machine does not have it.

    A separate process does it, because pyarrow's S3 client does not survive the fork at a sweep's start.

    Raises:
        UserError: the bucket cannot be used, or has no such sweep.
    """
    settings = Settings(**given)
    if settings.shared and settings.name and not (settings.folder / SETTINGS_FILE).exists():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
            apart.submit(restore, settings).result()


def restore(settings: Settings) -> None:
    """Restore the folder of a sweep from its bucket; see `fetch`."""
    exchange, folder = exchange_of(settings), settings.folder.absolute()
    assert isinstance(exchange, SharedBucket)
    exchange.begin(settings, is_new=False)
    exchange.bring(folder / JOURNAL_FILE)
    record = Record.read(folder)
    if not record.jobs:
        raise UserError(
            f"{settings.shared} has no journal of a sweep named {settings.name}; give the --shared it was started "
            f"with, or leave --resume out to start a new one"
        )
    exchange.forget_others(str(settings.name), record.jobs)
    for known in record.jobs.values():
        if known.outcome is not None:
            exchange.gather(known.job)
    exchange.bring(folder / SETTINGS_FILE)
