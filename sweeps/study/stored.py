"""A study as other programs read it, in a file or a database: write it from memory, and compare it with memory."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy.exc import InterfaceError, OperationalError

from sweeps.journal.jobs import trial_key
from sweeps.settings.objectives import Objectives
from sweeps.study.database import StudyStorage, UnreachableError

STUDY = "study"


class ContradictionError(ValueError):
    """The content of the storage was not written from this record."""


class StoredStudy:
    """The stored study of a row's search. Content that contradicts the journal is kept under another name."""

    def __init__(self, place: StudyStorage, objectives: Objectives, say: Callable[[str], None], row: str = "") -> None:
        self._place, self._objectives, self._say, self._row = place, objectives, say, row
        self._storage: RDBStorage | None = None
        self._id = -1
        self._written: dict[int, FrozenTrial] = {}
        self._ids: dict[int, int] = {}

    def bring(self, trials: Sequence[FrozenTrial]) -> None:
        """Write all trials of a study, ordered by number; idempotent.

        Raises:
            UserError: the storage cannot hold studies.
            Exception: a temporary error, for which `is_outage` is true.
        """
        try:
            self._bring(trials)
        except Exception as error:  # a damaged database raises anything, from sqlite3, SQLAlchemy, Optuna or json
            if is_outage(error):
                raise
            self._storage = None
            self._place.set_aside(error)
            self._bring(trials)
            self._say(f"{self._place} is damaged ({first_line(error)}) and was made again from the journal")

    def differences(self, trials: Sequence[FrozenTrial]) -> dict[str, list[str]]:
        """Return how the stored study differs from the trials, by the key of a trial's job.

        Raises:
            UserError: a shared database does not answer, or cannot hold studies.
        """
        try:
            self._place.check()
            there = self._place.storage()
            found = {
                trial.number: trial for trial in optuna.load_study(study_name=self._place.study, storage=there).trials
            }
        except UnreachableError:
            raise
        except Exception as error:  # see `bring`
            return {"-".join(filter(None, (STUDY, self._row))): [f"{self._place} cannot be read ({first_line(error)})"]}
        wanted = {trial.number: trial for trial in trials}
        told = {
            trial_key(self._row, number): list(_differences(found.get(number), wanted.get(number)))
            for number in sorted(found.keys() | wanted.keys())
        }
        return {key: lines for key, lines in told.items() if lines}

    def _bring(self, trials: Sequence[FrozenTrial]) -> None:
        if self._storage is None:
            self._open(trials)
        for trial in trials:
            # A trial in memory is replaced, never changed: the same object has been written already.
            if self._written.get(trial.number) is not trial:
                self._write(trial)
                self._written[trial.number] = trial

    def _open(self, trials: Sequence[FrozenTrial]) -> None:
        self._place.check()
        storage = self._place.storage()
        name = self._place.study
        names = list(self._objectives.names)
        directions = [StudyDirection.MAXIMIZE] * len(names)
        study = optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
        if study.directions != directions or study.metric_names not in (None, names):
            raise ContradictionError(f"it maximises {study.metric_names}, the sweep {names}")
        study.set_metric_names(names)
        self._id = storage.get_study_id_from_name(name)
        there = storage.get_all_trials(self._id, deepcopy=False)
        for trial in there:
            _check_part(trial, trials)
        self._ids = {trial.number: trial._trial_id for trial in there}
        self._written = {trial.number: trial for trial in there}
        self._storage = storage

    def _write(self, trial: FrozenTrial) -> None:
        assert self._storage is not None
        before = self._written.get(trial.number)
        if before is None:
            added = self._storage.create_new_trial(self._id, trial)
            if self._storage.get_trial_id_from_study_id_trial_number(self._id, trial.number) != added:
                raise ContradictionError(f"there is a trial {trial.number} already: somebody else writes there, too")
            self._ids[trial.number] = added
            return
        for epoch in trial.intermediate_values.keys() - before.intermediate_values.keys():
            self._storage.set_trial_intermediate_value(self._ids[trial.number], epoch, trial.intermediate_values[epoch])
        if trial.state.is_finished() and not before.state.is_finished():
            with contextlib.suppress(UpdateFinishedTrialError):  # it was written, but the answer was lost
                self._storage.set_trial_state_values(self._ids[trial.number], trial.state, trial.values)


def is_outage(error: BaseException) -> bool:
    """Return whether a failed call may succeed later: the place is down, busy, full, or read-only."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, OperationalError | InterfaceError):
        return "no such" not in str(cause)
    return isinstance(cause, UnreachableError | OSError)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _check_part(there: FrozenTrial, trials: Sequence[FrozenTrial]) -> None:
    """Check that a stored trial is a trial of the study, in its present or an earlier state.

    Raises:
        ContradictionError: it is not.
    """
    number = there.number
    if number >= len(trials):
        raise ContradictionError(f"trial {number} has {there.params} here, which is not in the journal")
    trial = trials[number]
    if there.params != trial.params:
        raise ContradictionError(f"trial {number} has {there.params} here and {trial.params} in the journal")
    for epoch, value in there.intermediate_values.items():
        if trial.intermediate_values.get(epoch) != value:
            raise ContradictionError(f"trial {number} has {value} at epoch {epoch}, which is not in the journal")
    if there.state.is_finished() and (there.state, there.values) != (trial.state, trial.values):
        raise ContradictionError(f"trial {number} is {there.state.name} here and {trial.state.name} in the journal")


def _differences(there: FrozenTrial | None, trial: FrozenTrial | None) -> Iterator[str]:
    if there is None or trial is None:
        yield f"the {'study' if there is None else 'journal'} lacks it"
        return
    if there.params != trial.params:
        yield f"the study has the parameters {there.params}, the journal {trial.params}"
    if there.intermediate_values != trial.intermediate_values:
        yield f"the study has the scores {there.intermediate_values}, the journal {trial.intermediate_values}"
    if there.state != trial.state:
        yield f"the study has it {there.state.name}, the journal {trial.state.name}"
