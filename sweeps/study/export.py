"""Keep the stored studies up to date while a sweep runs; their storage may be down, and never holds up training."""

from collections.abc import Callable, Sequence

from sweeps.journal.jobs import Report
from sweeps.journal.outbox import Outbox
from sweeps.journal.record import JobRecord
from sweeps.study.database import StudyStorage
from sweeps.study.searcher import Study
from sweeps.study.stored import StoredStudy, is_outage


class StudyExport:
    """A `Listener` that keeps the stored studies of a sweep up to date and never holds up training."""

    def __init__(self, studies: Sequence[Study], places: Sequence[StudyStorage], say: Callable[[str], None]) -> None:
        self._say = say
        self._pairs = [
            (study, StoredStudy(place, study.objectives, say, study.row))
            for study, place in zip(studies, places, strict=True)
        ]
        self._outbox = Outbox("the study's database", is_outage, say)
        self._has_failed = False

    def begin(self) -> None:
        """Prepare the storages of a new sweep, before it starts.

        Raises:
            UserError: a database does not answer, or cannot hold studies.
        """
        for _, stored in self._pairs:
            stored.bring([])

    def open(self) -> None:
        """Write what the stored studies lack, and keep them up to date from now on."""
        self._put()
        self._outbox.start()

    def started(self, known: JobRecord) -> None:
        """See `Listener`."""
        self._put()

    def reported(self, known: JobRecord, report: Report) -> None:
        """See `Listener`."""
        self._put()

    def ended(self, known: JobRecord) -> None:
        """See `Listener`."""
        self._put()

    def _put(self) -> None:
        if not self._has_failed:
            self._outbox.put("the study", self._bring)

    def _bring(self) -> None:
        try:
            for study, stored in self._pairs:
                stored.bring(study.trials())
        except Exception as error:
            self._has_failed = not is_outage(error)  # else the error would be printed again at every report
            raise

    def close(self, patience_s: float) -> None:
        """Write the rest, for at most `patience_s`."""
        self._put()
        if self._outbox.close(patience_s) or self._has_failed:
            self._say(
                "the stored study lacks the latest trials; the journal has them, and a resume or an audit writes them"
            )
