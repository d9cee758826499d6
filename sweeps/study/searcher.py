"""The search: a study in memory, made from the sweep's record, which proposes and prunes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from ltsd.errors import UserError
from ltsd.knobs import Value
from sweeps.journal.jobs import Job, Report, rank
from sweeps.journal.record import JobRecord, Outcome, Record
from sweeps.study.sampler import BoundedTPE

OBJECTIVE = "val/robust_acc"
STATES: Mapping[Outcome, TrialState] = {
    "done": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True)
class Proposal:
    """A point that Optuna wants measured: its trial number and {dotted config name: value}."""

    number: int
    params: dict[str, Value]


class Study:
    """One sweep's study. It is in memory alone: the record is what it is made from, whenever a process begins.

    A finished trial is COMPLETE with its last value, one stopped early PRUNED with its intermediate values, one that
    diverged or crashed FAIL. Telling the same trial twice changes nothing. `asked` counts the trials that were started,
    whatever became of them.

    Raises:
        UserError: the record has points of another space.
    """

    def __init__(self, record: Record, seed: int, space: Mapping[str, BaseDistribution], pruner: BasePruner) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._record, self._seed = record, seed
        self._space = dict(space)
        # A trial's id is its number there, since it has no other study.
        self._memory = InMemoryStorage()
        self.optuna = optuna.create_study(storage=self._memory, direction="maximize", pruner=pruner)
        self._taken = set[int]()
        self.asked = 0
        jobs = {trial_number(known.job): known for known in record.of_kind("trial")}
        proposals = {number: self._params_of(known.job) for number, known in jobs.items()} | record.proposals
        for number in range(max(proposals, default=-1) + 1):
            self._adopt(number, proposals.get(number), jobs.get(number))

    def _params_of(self, job: Job) -> dict[str, Value]:
        """The point of a trial by its job, for where the line of its proposal was lost."""
        flat = job.config.flatten()
        return {name: flat[name] for name in self._space}

    def _adopt(self, number: int, params: Mapping[str, Value] | None, known: JobRecord | None) -> None:
        """Take a trial over from the record; one of which nothing is left there has failed."""
        if params is None:
            self.optuna.add_trial(create_trial(state=TrialState.FAIL))
        else:
            self.optuna.add_trial(self._trial(number, params, known))
        self.asked += 1

    def _trial(self, number: int, params: Mapping[str, Value], known: JobRecord | None) -> FrozenTrial:
        scores = scores_of(known) if known else {}
        state = STATES[known.outcome] if known and known.outcome else TrialState.RUNNING
        if params.keys() != self._space.keys():
            raise UserError(
                f"trial {number} of this sweep searched {', '.join(sorted(params))}, and this version would search "
                f"{', '.join(sorted(self._space))}; go on with the version that it began with, or start another sweep"
            )
        try:
            return create_trial(
                state=state,
                value=scores[max(scores)] if state == TrialState.COMPLETE else None,
                params=dict(params),
                distributions=self._space,
                intermediate_values=scores,
            )
        except ValueError as error:
            raise UserError(
                f"trial {number} of this sweep lies outside of what this version searches ({error}); go on with the "
                f"version that it began with, or start another sweep"
            ) from None

    def enqueue(self, params: Mapping[str, Value]) -> None:
        """Have a point tried first, unless it is known already."""
        self.optuna.enqueue_trial(dict(params), skip_if_exists=True)

    def ask(self) -> Proposal:
        """A new point, which is on record. It depends on the seed, its number and what was told before alone."""
        self.optuna.sampler = BoundedTPE(self._space, self._seed * 100_003 + self.asked)
        trial = self.optuna.ask(self._space)
        self._record.proposed(trial.number, trial.params)
        self.asked += 1
        self._taken.add(trial.number)
        return Proposal(trial.number, dict(trial.params))

    def orphans(self) -> list[Proposal]:
        """Trials that an earlier process left RUNNING, taken over by this one."""
        left = [trial for trial in self.trials(TrialState.RUNNING) if trial.number not in self._taken]
        self._taken.update(trial.number for trial in left)
        return [Proposal(trial.number, dict(trial.params)) for trial in left]

    def report(self, number: int, epoch: int, value: float) -> None:
        """Take the objective at an epoch."""
        self._memory.set_trial_intermediate_value(number, epoch, value)

    def is_poor(self, number: int) -> bool:
        """Whether the pruner would stop the trial at the epoch it reported last."""
        return self.optuna.pruner.prune(self.optuna, self._memory.get_trial(number))

    def finish(self, number: int, state: TrialState, value: float | None = None) -> None:
        """Take how a trial ended; only a complete one has a value."""
        if not self._memory.get_trial(number).state.is_finished():
            values = [value] if state == TrialState.COMPLETE and value is not None else None
            self._memory.set_trial_state_values(number, state, values)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials in some states, by number; without states all that are on record."""
        found = self.optuna.get_trials(deepcopy=False, states=states or None)
        return [trial for trial in found if trial.number < self.asked]

    def finished(self) -> list[FrozenTrial]:
        """The trials that are over."""
        return self.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

    def best(self) -> FrozenTrial | None:
        """The complete trial with the highest objective; None while there is none."""
        complete = self.trials(TrialState.COMPLETE)
        return max(complete, key=lambda trial: rank(trial.value)) if complete else None


def trial_number(job: Job) -> int:
    """The Optuna number of a trial's job."""
    return int(job.key.rpartition("-")[2])


def scores_of(known: JobRecord) -> dict[int, float]:
    """The objective by epoch, where it was validated."""
    return {epoch: one.values[OBJECTIVE] for epoch, one in known.epochs.items() if is_scored(one)}


def is_scored(report: Report) -> bool:
    """Whether the objective was measured, and is a number."""
    return math.isfinite(report.values.get(OBJECTIVE, math.nan))
