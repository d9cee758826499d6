"""The search: a study in memory, made from the sweep's record, which proposes points and stops trials early."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from ltsd.errors import UserError
from ltsd.knobs import Value
from ltsd.tasks import metric
from sweeps.journal.jobs import Job, Report
from sweeps.journal.record import JobRecord, Outcome, Record
from sweeps.settings.objectives import Objectives, Preference, Scores
from sweeps.study.fronts import front_ranks, is_in_worse_half
from sweeps.study.sampler import BoundedTPE

VALIDATED = "val/robust"
"""The score that every validated epoch has, without the measure of the task."""
WARM_TRIALS = 4
STATES: Mapping[Outcome, TrialState] = {
    "done": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True)
class Proposal:
    """A point that Optuna proposes: its trial number and {dotted config name: value}."""

    number: int
    params: dict[str, Value]


class Study:
    """The study of a row's search; "" is the sweep's own. It is in memory only, and made from the record whenever a
    process starts.

    A finished trial is COMPLETE with its last scores, PRUNED if it was stopped early, FAIL if it diverged or crashed.
    Telling the same trial twice changes nothing. `asked` counts the trials that were started. Optuna's intermediate
    values have only the first objective, because Optuna accepts no more than one.

    Raises:
        UserError: the record has points of another space.
    """

    def __init__(
        self,
        record: Record,
        seed: int,
        space: Mapping[str, BaseDistribution],
        objectives: Objectives,
        preference: Preference | None = None,
        row: str = "",
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.row, self.objectives, self._preference = row, objectives, preference
        self._record, self._seed = record, seed
        self._space = dict(space)
        # This storage has one study, so the id of a trial is its number.
        self._memory = InMemoryStorage()
        self.optuna = optuna.create_study(storage=self._memory, directions=["maximize"] * len(objectives.names))
        self.optuna.set_metric_names(list(objectives.names))
        self._curves: dict[int, dict[int, Scores]] = {}
        self._taken = set[int]()
        self.asked = 0
        jobs = {trial_number(known.job): known for known in record.of_kind("trial", row)}
        proposals = {number: self._params_of(known.job) for number, known in jobs.items()}
        proposals |= record.proposals(row)
        for number in range(max(proposals, default=-1) + 1):
            self._adopt(number, proposals.get(number), jobs.get(number))

    def _params_of(self, job: Job) -> dict[str, Value]:
        """Return the point of a trial from its job, in case the line of its proposal is lost."""
        flat = job.config.flatten()
        return {name: flat[name] for name in self._space}

    def _adopt(self, number: int, params: Mapping[str, Value] | None, known: JobRecord | None) -> None:
        """Add a trial from the record; a trial whose lines are lost counts as failed."""
        if params is None:
            self.optuna.add_trial(create_trial(state=TrialState.FAIL))
        else:
            self.optuna.add_trial(self._trial(number, params, known))
        self.asked += 1

    def _trial(self, number: int, params: Mapping[str, Value], known: JobRecord | None) -> FrozenTrial:
        scores = self._curves[number] = self._scores_of(known) if known else {}
        state, last = _ended(STATES[known.outcome] if known and known.outcome else TrialState.RUNNING, scores)
        if params.keys() != self._space.keys():
            raise UserError(
                f"trial {number} of this sweep searched {', '.join(sorted(params))}, and this version would search "
                f"{', '.join(sorted(self._space))}; go on with the version that it began with, or start another sweep"
            )
        try:
            return create_trial(
                state=state,
                values=last,
                params=dict(params),
                distributions=self._space,
                intermediate_values={epoch: of_epoch[0] for epoch, of_epoch in scores.items()},
            )
        except ValueError as error:
            raise UserError(
                f"trial {number} of this sweep lies outside of what this version searches ({error}); go on with the "
                f"version that it began with, or start another sweep"
            ) from None

    def enqueue(self, params: Mapping[str, Value]) -> None:
        """Queue a point to be tried first, unless it is known already."""
        self.optuna.enqueue_trial(dict(params), skip_if_exists=True)

    def ask(self) -> Proposal:
        """Return a new point and put it on record. It depends only on the seed, its number and earlier results."""
        self.optuna.sampler = BoundedTPE(self._space, self._seed * 100_003 + self.asked, self._floors())
        trial = self.optuna.ask(self._space)
        self._record.proposed(trial.number, trial.params, self.row)
        self.asked += 1
        self._taken.add(trial.number)
        return Proposal(trial.number, dict(trial.params))

    def _floors(self) -> Scores | None:
        """Return the scores that a point should reach, from the preference and the scores of the first trial, which has
        the defaults.
        """
        first = self.trials()[:1]
        usual = first[0].values if first and first[0].state == TrialState.COMPLETE else ()
        return self._preference.floors(usual) if self._preference is not None else None

    def orphans(self) -> list[Proposal]:
        """Take over the trials that an earlier process left RUNNING."""
        left = [trial for trial in self.trials(TrialState.RUNNING) if trial.number not in self._taken]
        self._taken.update(trial.number for trial in left)
        return [Proposal(trial.number, dict(trial.params)) for trial in left]

    def report(self, number: int, epoch: int, values: Mapping[str, float]) -> None:
        """Take the objectives from the metrics of a validated epoch."""
        scores = self.objectives.of(values)
        if scores is not None:
            self._curves.setdefault(number, {})[epoch] = scores
            self._memory.set_trial_intermediate_value(number, epoch, scores[0])

    def is_poor(self, number: int) -> bool:
        """Return whether a trial is in the worse half of those that reached its last reported epoch."""
        if not self._curves.get(number):
            return False
        epoch, own = max(self._curves[number].items())
        others = [curve[epoch] for other, curve in self._curves.items() if other != number and epoch in curve]
        return len(others) >= WARM_TRIALS and is_in_worse_half(own, others)

    def finish(self, number: int, state: TrialState) -> None:
        """Record how a trial ended; only a complete one has scores, those of its last epoch."""
        if not self._memory.get_trial(number).state.is_finished():
            state, scores = _ended(state, self._curves.get(number, {}))
            self._memory.set_trial_state_values(number, state, scores)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in some states, by number; all without states."""
        found = self.optuna.get_trials(deepcopy=False, states=states or None)
        return [trial for trial in found if trial.number < self.asked]

    def finished(self) -> list[FrozenTrial]:
        """Return the trials that are over."""
        return self.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

    def leaders(self) -> list[FrozenTrial]:
        """Return the complete trial with the highest score, for every objective; none before a trial is complete."""
        complete = self.trials(TrialState.COMPLETE)
        return [max(complete, key=lambda trial: trial.values[k]) for k in range(len(self.objectives.names)) if complete]

    def leaders_told(self) -> str:
        """Return the leaders in words; "" before a trial is complete."""
        return ", ".join(
            f"{name} {100 * trial.values[k]:.1f}% (trial {trial.number})"
            for k, (name, trial) in enumerate(zip(self.objectives.names, self.leaders(), strict=False))
        )

    def front(self) -> list[FrozenTrial]:
        """Return the complete trials that no other one dominates."""
        complete = self.trials(TrialState.COMPLETE)
        ranks = front_ranks([tuple(trial.values) for trial in complete])
        return [trial for trial, rank in zip(complete, ranks, strict=True) if rank == 0]

    def _scores_of(self, known: JobRecord) -> dict[int, Scores]:
        """Return the objectives by epoch, where they were validated."""
        found = {epoch: self.objectives.of(one.values) for epoch, one in known.epochs.items()}
        return {epoch: scores for epoch, scores in found.items() if scores is not None}


def _ended(state: TrialState, curve: Mapping[int, Scores]) -> tuple[TrialState, Scores | None]:
    """Return the state of a trial and its scores, those of its last epoch. Only a complete trial has scores; one
    without any has failed.
    """
    if state != TrialState.COMPLETE:
        return state, None
    return (state, curve[max(curve)]) if curve else (TrialState.FAIL, None)


def trial_number(job: Job) -> int:
    """Return the Optuna number of a trial's job."""
    return int(job.key.rpartition("-")[2])


def is_scored(job: Job, report: Report) -> bool:
    """Return whether the epoch was validated, with a finite score."""
    return math.isfinite(report.values.get(metric(job.config, VALIDATED), math.nan))
