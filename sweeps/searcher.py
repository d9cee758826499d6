"""The Optuna side: the persistent study is the record of what was proposed, reported and decided."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from ltsd.config import Value
from ltsd.errors import UserError

OBJECTIVE = "val/robust_acc"
RANDOM_TRIALS = 6
STUDY_FILE = "study.db"


@dataclass(frozen=True)
class Proposal:
    """A point that Optuna wants measured: its trial number and {dotted config name: value}."""

    number: int
    params: dict[str, Value]


class Study:
    """One sweep's study in its sqlite file; every method leaves the file true.

    A finished trial is COMPLETE with its last value, one stopped early PRUNED with its intermediate values,
    one that diverged or crashed FAIL. Telling the same trial twice changes nothing.
    """

    def __init__(self, folder: Path, seed: int, space: Mapping[str, BaseDistribution], pruner: BasePruner) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._seed = seed
        self._space = dict(space)
        self._live: dict[int, Trial] = {}
        try:
            self.optuna = optuna.create_study(
                study_name="sweep",
                storage=f"sqlite:///{folder.absolute() / STUDY_FILE}",
                direction="maximize",
                pruner=pruner,
                load_if_exists=True,
            )
        except Exception as error:
            if "database" not in str(error).lower():
                raise
            raise UserError(f"{folder / STUDY_FILE} is not an Optuna study or is damaged ({error})") from error

    def enqueue(self, params: Mapping[str, Value]) -> None:
        """Have a point tried first, unless it is known already."""
        self.optuna.enqueue_trial(dict(params), skip_if_exists=True)

    def ask(self) -> Proposal:
        """A new point. It depends on the seed, its number and what was told before, not on when it is asked."""
        number = len(self.optuna.get_trials(deepcopy=False, states=_ASKED))
        self.optuna.sampler = TPESampler(seed=self._seed * 100_003 + number, n_startup_trials=RANDOM_TRIALS)
        trial = self.optuna.ask(self._space)
        self._live[trial.number] = trial
        return Proposal(trial.number, dict(trial.params))

    def orphans(self) -> list[Proposal]:
        """Trials that an earlier process left RUNNING, taken over by this one."""
        found = []
        for frozen in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if frozen.number not in self._live:
                self._live[frozen.number] = Trial(self.optuna, frozen._trial_id)
                found.append(Proposal(frozen.number, dict(frozen.params)))
        return found

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Record the objective at an epoch; returns whether the pruner would stop the trial here."""
        trial = self._live[number]
        if epoch not in self.optuna.trials[number].intermediate_values:
            trial.report(value, epoch)
        return trial.should_prune()

    def finish(self, number: int, state: TrialState, value: float | None = None) -> None:
        """Tell how a trial ended."""
        self._live.pop(number, None)
        self.optuna.tell(number, value, state=state, skip_if_finished=True)

    def asked(self) -> int:
        """How many trials were started, whatever became of them."""
        return len(self.optuna.get_trials(deepcopy=False, states=_ASKED))

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials in some states, by number."""
        return self.optuna.get_trials(deepcopy=False, states=states or None)

    def finished(self) -> list[FrozenTrial]:
        """The trials that are over."""
        return self.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

    def best(self) -> FrozenTrial | None:
        """The complete trial with the highest objective; None while there is none."""
        complete = self.trials(TrialState.COMPLETE)
        return max(complete, key=lambda trial: trial.value or 0.0) if complete else None


_ASKED = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
