"""A study as it lies in its place: read once, when it is opened, then written, each change whole and at once."""

import contextlib
from collections.abc import Callable, Sequence

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from sweeps.study.database import StudyPlace


class StoredStudy:
    """For its one writer, who has in memory what lies there. It is made where there is none.

    Every method raises optuna's StorageInternalError where the place cannot be written.
    """

    def __init__(self, place: StudyPlace) -> None:
        self._storage = place.storage()
        optuna.create_study(study_name=place.study, storage=self._storage, direction="maximize", load_if_exists=True)
        self._study = self._storage.get_study_id_from_name(place.study)
        self.trials = self._storage.get_all_trials(self._study, deepcopy=False)
        self._ids = {trial.number: trial._trial_id for trial in self.trials}

    def add(self, trial: FrozenTrial) -> None:
        """Write a new trial with all that it has, in one transaction.

        Raises:
            StorageInternalError: it has another number there, since somebody else has added one.
        """
        added = self._storage.create_new_trial(self._study, trial)
        if self._storage.get_trial_id_from_study_id_trial_number(self._study, trial.number) != added:
            raise StorageInternalError(f"the study has a trial {trial.number} already: somebody else writes there, too")
        self._ids[trial.number] = added

    def report(self, number: int, epoch: int, value: float) -> None:
        """Write the objective at an epoch."""
        _twice(lambda: self._storage.set_trial_intermediate_value(self._ids[number], epoch, value))

    def finish(self, number: int, state: TrialState, values: Sequence[float] | None) -> None:
        """Write how a trial ended, which can be done once."""
        with contextlib.suppress(UpdateFinishedTrialError):  # where the first try was done and its answer lost
            _twice(lambda: self._storage.set_trial_state_values(self._ids[number], state, values))


def _twice(act: Callable[[], object]) -> None:
    """Do what has the same effect when it is done twice: again where the connection to a database broke under it. The
    second time waits for another connection, see `sweeps.study.database.Patience`.
    """
    try:
        act()
    except StorageInternalError:
        act()
