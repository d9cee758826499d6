"""The Optuna side: the persistent study, which proposes and prunes; a view of the sweep's record."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from ltsd.errors import UserError
from ltsd.knobs import Value
from sweeps.journal.jobs import Job, Report, rank
from sweeps.journal.record import JobRecord, Outcome, Record
from sweeps.study.database import StudyPlace
from sweeps.study.sampler import BoundedTPE
from sweeps.study.stored import StoredStudy

OBJECTIVE = "val/robust_acc"
STUDY = "study"
STATES: Mapping[Outcome, TrialState] = {
    "done": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class ContradictionError(ValueError):
    """The study and the journal tell different things."""


@dataclass(frozen=True)
class Proposal:
    """A point that Optuna wants measured: its trial number and {dotted config name: value}."""

    number: int
    params: dict[str, Value]


class Study:
    """One sweep's study; every method leaves what lies in its place true.

    Optuna proposes and prunes from a study in memory, so that nothing is read back, however many trials run and
    wherever the study lies; each change is written to the place as well.

    A finished trial is COMPLETE with its last value, one stopped early PRUNED with its intermediate values, one that
    diverged or crashed FAIL. Telling the same trial twice changes nothing. `asked` counts the trials that were started,
    whatever became of them.
    """

    def __init__(self, place: StudyPlace, seed: int, space: Mapping[str, BaseDistribution], pruner: BasePruner) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._seed = seed
        self._space = dict(space)
        self._stored = StoredStudy(place)
        # A trial's id is its number there, since it has no other study.
        self._memory = InMemoryStorage()
        self.optuna = optuna.create_study(
            study_name=place.study, storage=self._memory, direction="maximize", pruner=pruner
        )
        self.optuna.add_trials(self._stored.trials)
        self._taken = set[int]()
        self.asked = len(self._stored.trials)

    @classmethod
    def agreeing(
        cls, record: Record, place: StudyPlace, seed: int, space: Mapping[str, BaseDistribution], pruner: BasePruner
    ) -> tuple[Self, str]:
        """The study of a sweep, brought in line with its record; where it cannot be, it is made again from the record.

        Returns:
            The study, and why it was made again; "" where it was not. What was there is kept.

        Raises:
            UserError: a database that sweeps share does not answer, or keeps no studies.
        """
        try:
            place.check()
            study = cls(place, seed, space, pruner)
            study.adopt(record)
        except UserError:
            raise
        except Exception as error:  # a damaged database raises anything, from sqlite3, SQLAlchemy, Optuna or json
            place.set_aside(error)
            study = cls(place, seed, space, pruner)
            study.adopt(record)
            return study, f"{place} is damaged ({first_line(error)}) and was made again from the journal"
        return study, ""

    def adopt(self, record: Record) -> None:
        """Give the study what the record has and it lacks, and the record the proposals that it lacks.

        Raises:
            ContradictionError: the two tell different things of a trial.
        """
        found = {trial.number: trial for trial in self.trials()}
        for number, params in sorted(record.proposals.items()):
            if number not in found:
                self._insert(number, params)
            elif dict(found[number].params) != params:
                raise ContradictionError(f"trial {number} has {found[number].params} here and {params} in the journal")
        unknown = sorted(found.keys() - record.proposals.keys())
        if len(unknown) > 1:  # one proposal at most is on its way into the journal when a process ends
            raise ContradictionError(f"the trials {', '.join(map(str, unknown))} are here and not in the journal")
        for number in unknown:
            if found[number].params.keys() != self._space.keys():
                raise ContradictionError(f"trial {number} has {found[number].params} here, which was never proposed")
            record.proposed(number, found[number].params)
        jobs = {trial_number(known.job): known for known in record.of_kind("trial")}
        for trial in self.finished():
            if trial.number not in jobs:
                raise ContradictionError(f"trial {trial.number} is {trial.state.name}, the journal has no start of it")
        trials = self.trials()
        for number, known in jobs.items():
            self._adopt_trial(trials[number], known, record)

    def _insert(self, number: int, params: Mapping[str, Value]) -> None:
        if number != self.asked:
            raise ContradictionError(f"trial {number} is in the journal, and here there are {self.asked}")
        distributions = {name: self._space[name] for name in params}
        self.optuna.add_trial(create_trial(state=TrialState.RUNNING, params=dict(params), distributions=distributions))
        self._add(number)

    def _add(self, number: int) -> None:
        """Have the place know a new trial."""
        self._stored.add(self._memory.get_trial(number))
        self.asked += 1

    def _adopt_trial(self, frozen: FrozenTrial, known: JobRecord, record: Record) -> None:
        number, scores = frozen.number, scores_of(known)
        for epoch, value in frozen.intermediate_values.items():
            if scores.get(epoch, value) != value:
                raise ContradictionError(f"trial {number} has {value} at epoch {epoch}, the journal {scores[epoch]}")
        if frozen.state == TrialState.RUNNING:
            for epoch in sorted(scores.keys() - frozen.intermediate_values.keys()):
                self.report(number, epoch, scores[epoch])
            if known.outcome is not None:
                self.finish(number, STATES[known.outcome], scores.get(known.last_epoch))
        elif scores.keys() != frozen.intermediate_values.keys():
            raise ContradictionError(f"trial {number} has scores that the journal lacks")
        elif known.outcome is None:
            record.ended(known.job, next(o for o, state in STATES.items() if state == frozen.state), "")
        elif frozen.state != STATES[known.outcome]:
            raise ContradictionError(f"trial {number} is {frozen.state.name}, the journal has it {known.outcome}")

    def enqueue(self, params: Mapping[str, Value]) -> None:
        """Have a point tried first, unless it is known already."""
        self.optuna.enqueue_trial(dict(params), skip_if_exists=True)

    def ask(self) -> Proposal:
        """A new point. It depends on the seed, its number and what was told before, not on when it is asked."""
        self.optuna.sampler = BoundedTPE(self._space, self._seed * 100_003 + self.asked)
        trial = self.optuna.ask(self._space)
        self._add(trial.number)
        self._taken.add(trial.number)
        return Proposal(trial.number, dict(trial.params))

    def orphans(self) -> list[Proposal]:
        """Trials that an earlier process left RUNNING, taken over by this one."""
        left = [trial for trial in self.trials(TrialState.RUNNING) if trial.number not in self._taken]
        self._taken.update(trial.number for trial in left)
        return [Proposal(trial.number, dict(trial.params)) for trial in left]

    def report(self, number: int, epoch: int, value: float) -> None:
        """Record the objective at an epoch."""
        self._memory.set_trial_intermediate_value(number, epoch, value)
        self._stored.report(number, epoch, value)

    def is_poor(self, number: int) -> bool:
        """Whether the pruner would stop the trial at the epoch it reported last."""
        return self.optuna.pruner.prune(self.optuna, self._memory.get_trial(number))

    def finish(self, number: int, state: TrialState, value: float | None = None) -> None:
        """Tell how a trial ended; only a complete one has a value."""
        if not self._memory.get_trial(number).state.is_finished():
            told = self.optuna.tell(number, value if state == TrialState.COMPLETE else None, state=state)
            self._stored.finish(number, told.state, told.values)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials in some states, by number."""
        return self.optuna.get_trials(deepcopy=False, states=states or None)

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


def differences_of_study(place: StudyPlace, record: Record) -> dict[str, list[str]]:
    """What the study has otherwise than the record, by the key of a trial's job.

    Raises:
        UserError: a database that sweeps share does not answer, or keeps no studies.
    """
    try:
        place.check()
        study = optuna.load_study(study_name=place.study, storage=place.storage())
        trials = {trial.number: trial for trial in study.trials}
    except UserError:
        raise
    except Exception as error:  # see `Study.agreeing`
        return {STUDY: [f"{place} cannot be read ({first_line(error)})"]}
    jobs = {trial_number(known.job): known for known in record.of_kind("trial")}
    found: dict[str, list[str]] = {}
    for number in sorted(record.proposals.keys() | trials.keys()):
        told = list(_differences_of_trial(trials.get(number), record.proposals.get(number), jobs.get(number)))
        if told:
            found[f"trial-{number:04d}"] = told
    return found


def _differences_of_trial(
    trial: FrozenTrial | None, params: Mapping[str, Value] | None, known: JobRecord | None
) -> Iterator[str]:
    if trial is None or params is None:
        yield f"the {'study' if trial is None else 'journal'} lacks it"
        return
    if dict(trial.params) != params:
        yield f"the study has the parameters {trial.params}, the journal {params}"
    scores = scores_of(known) if known else {}
    if trial.intermediate_values != scores:
        yield f"the study has the scores {trial.intermediate_values}, the journal {scores}"
    state = STATES[known.outcome] if known and known.outcome else TrialState.RUNNING
    if trial.state != state:
        yield f"the study has it {trial.state.name}, the journal {state.name}"


def scores_of(known: JobRecord) -> dict[int, float]:
    """The objective by epoch, where it was validated."""
    return {epoch: one.values[OBJECTIVE] for epoch, one in known.epochs.items() if is_scored(one)}


def is_scored(report: Report) -> bool:
    """Whether the objective was measured, and is a number."""
    return math.isfinite(report.values.get(OBJECTIVE, math.nan))


def first_line(error: BaseException) -> str:
    """What an error says, in a line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
