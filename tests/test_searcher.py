"""The search: made from the record alone, with proposals that can be had again."""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from ltsd.config import Config
from ltsd.errors import UserError
from ltsd.knobs import Value
from sweeps.journal.jobs import Job, Report
from sweeps.journal.record import Outcome, Record
from sweeps.settings.objectives import Objectives, Preference
from sweeps.study.fronts import front_ranks
from sweeps.study.sampler import RANDOM_TRIALS
from sweeps.study.searcher import STATES, WARM_TRIALS, Proposal, Study

SPACE: Mapping[str, BaseDistribution] = {
    "distill.temperature": FloatDistribution(0.5, 8.0, log=True),
    "balance.teacher_gamma": CategoricalDistribution([1.0, 5.0, 10.0]),
}


ROBUST, BOTH = Objectives(("robust",)), Objectives(("robust", "tail"))


def opened(folder: Path, seed: int = 0, objectives: Objectives = ROBUST) -> Study:
    """A study of what is on record in a folder, as a process has it that begins there."""
    return Study(Record.open(folder), seed, SPACE, objectives)


def values(robust: float, tail: float = 0.25) -> dict[str, float]:
    return {"val/robust_acc": robust, "val/tail_robust_acc": tail}


def score(params: Mapping[str, Value]) -> float:
    temperature, gamma = params["distill.temperature"], params["balance.teacher_gamma"]
    assert isinstance(temperature, float)
    assert isinstance(gamma, float)
    return 1 / (1 + (temperature - 2) ** 2 + gamma / 10)


def recorded(folder: Path) -> Record:
    """A record of four trials: done, pruned, failed, and one that is not over."""
    record = Record.open(folder)
    outcomes: tuple[Outcome | None, ...] = ("done", "pruned", "failed", None)
    for number, outcome in enumerate(outcomes):
        record.proposed(number, {"distill.temperature": 1.0 + number, "balance.teacher_gamma": 5.0})
        job = started(record, number)
        for epoch in (5, 10):
            record.reported(job, Report(epoch, values=values((10 * number + epoch) / 100)))
        if outcome is not None:
            record.ended(job, outcome, "")
    return record


def started(record: Record, number: int) -> Job:
    config = Config().override(record.proposals()[number])
    job = Job("trial", f"trial-{number:04d}", config, "train", "runs")
    record.started(job, 0)
    return job


def told(trials: list[FrozenTrial]) -> list[tuple[str, dict[str, object], dict[int, float], tuple[float, ...]]]:
    return [
        (trial.state.name, dict(trial.params), trial.intermediate_values, tuple(trial.values or ())) for trial in trials
    ]


def test_a_study_is_what_the_record_has(tmp_path: Path) -> None:
    study = Study(recorded(tmp_path), 0, SPACE, ROBUST)
    points = [{"distill.temperature": 1.0 + number, "balance.teacher_gamma": 5.0} for number in range(4)]
    assert told(study.trials()) == [
        ("COMPLETE", points[0], {5: 0.05, 10: 0.1}, (0.1,)),
        ("PRUNED", points[1], {5: 0.15, 10: 0.2}, ()),
        ("FAIL", points[2], {5: 0.25, 10: 0.3}, ()),
        ("RUNNING", points[3], {5: 0.35, 10: 0.4}, ()),
    ]
    assert study.asked == 4
    assert [trial.number for trial in study.finished()] == [0, 1, 2]
    assert study.orphans() == [Proposal(3, points[3])]
    assert study.orphans() == []


def test_what_is_told_while_it_runs_is_what_the_next_process_finds(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    study = Study(record, 0, SPACE, ROBUST)
    for number, outcome in enumerate(("done", "pruned", "failed", None)):
        assert study.ask().number == number
        job = started(record, number)
        record.reported(job, Report(5, values=values(0.5)))
        study.report(number, 5, values(0.5))
        if outcome is not None:
            record.ended(job, outcome, "")
            study.finish(number, STATES[outcome])
            study.finish(number, TrialState.FAIL)
    assert told(opened(tmp_path).trials()) == told(study.trials())


def test_a_proposal_is_on_record_before_it_is_returned(tmp_path: Path) -> None:
    proposal = opened(tmp_path).ask()
    assert Record.read(tmp_path).proposals() == {0: proposal.params}
    assert opened(tmp_path).orphans() == [proposal]


def test_a_trial_whose_proposal_a_damaged_journal_lost_is_known_by_its_job_or_has_failed(tmp_path: Path) -> None:
    record = recorded(tmp_path)
    before = told(Study(record, 0, SPACE, ROBUST).trials())
    del record.proposals()[1]
    assert told(Study(record, 0, SPACE, ROBUST).trials()) == before
    del record.jobs["trial-0001"]
    found = told(Study(record, 0, SPACE, ROBUST).trials())
    assert found == [before[0], ("FAIL", {}, {}, ()), *before[2:]]


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"distill.temperature": SPACE["distill.temperature"]}, "trial 0 of this sweep searched balance.teacher_gamma"),
        (
            {**SPACE, "distill.temperature": FloatDistribution(2.0, 8.0)},
            r"trial 0 of this sweep lies outside of what this version searches .*1.0",
        ),
    ],
)
def test_a_record_of_another_space_is_refused(tmp_path: Path, space: Mapping[str, BaseDistribution], said: str) -> None:
    with pytest.raises(UserError, match=rf"{said}.*; go on with the version that it began with, or start another"):
        Study(recorded(tmp_path), 0, space, ROBUST)


def proposals_of(folder: Path, seed: int, reopen: bool, bonus: float = 0.0) -> list[Proposal]:
    """Nine proposals, each asked for while the one before still runs; `bonus` changes what was measured."""
    folder.mkdir()
    record = Record.open(folder)
    study, found, running = Study(record, seed, SPACE, ROBUST), list[Proposal](), list[Proposal]()
    for number in range(RANDOM_TRIALS + 3):
        if reopen and number > RANDOM_TRIALS - 2:
            record = Record.open(folder)
            study = Study(record, seed, SPACE, ROBUST)
            study.orphans()
        found.append(study.ask())
        running.append(found[-1])
        if len(running) > 1:
            done = running.pop(0)
            value = score(done.params) * (-1 if bonus else 1) + bonus
            job = started(record, done.number)
            record.reported(job, Report(5, values=values(value)))
            study.report(done.number, 5, values(value))
            record.ended(job, "done", "")
            study.finish(done.number, TrialState.COMPLETE)
    return found


def test_proposals_depend_on_the_seed_the_number_and_the_history_alone(tmp_path: Path) -> None:
    first = proposals_of(tmp_path / "one", seed=0, reopen=False)
    assert [proposal.number for proposal in first] == list(range(RANDOM_TRIALS + 3))
    assert proposals_of(tmp_path / "again", seed=0, reopen=True) == first
    (tmp_path / "seed").mkdir()
    assert opened(tmp_path / "seed", seed=1).ask().params != first[0].params
    otherwise = proposals_of(tmp_path / "history", seed=0, reopen=False, bonus=2.0)
    assert otherwise[:RANDOM_TRIALS] == first[:RANDOM_TRIALS]
    assert otherwise[RANDOM_TRIALS + 1 :] != first[RANDOM_TRIALS + 1 :]


def test_a_point_that_was_enqueued_is_tried_first_and_once(tmp_path: Path) -> None:
    published: dict[str, Value] = {"distill.temperature": 1.0, "balance.teacher_gamma": 10.0}
    study = opened(tmp_path)
    study.enqueue(published)
    assert (study.asked, study.trials()) == (0, [])
    study.enqueue(published)
    assert study.ask() == Proposal(0, published)
    again = opened(tmp_path)
    again.enqueue(published)
    assert again.ask().params != published


def reported(study: Study, *scores: tuple[float, float], epoch: int = 5) -> list[int]:
    """New trials with robust and tail accuracies at an epoch."""
    numbers = [study.ask().number for _ in scores]
    for number, (robust, tail) in zip(numbers, scores, strict=True):
        study.report(number, epoch, values(robust, tail))
    return numbers


def test_of_one_objective_what_is_below_the_median_of_those_that_came_so_far_is_stopped(tmp_path: Path) -> None:
    study = opened(tmp_path)
    early = reported(study, *[(robust, 0.0) for robust in (0.5, 0.6, 0.7, 0.8)])
    assert len(early) == WARM_TRIALS
    assert not any(map(study.is_poor, early))
    poor, good = reported(study, (0.62, 0.0), (0.68, 0.0))
    assert (study.is_poor(poor), study.is_poor(good)) == (True, False)
    study.report(poor, 10, values(0.1))
    assert not study.is_poor(poor), "nobody else came so far"


def test_of_two_objectives_what_most_of_the_others_have_more_of_both_is_stopped(tmp_path: Path) -> None:
    study = opened(tmp_path, objectives=BOTH)
    reported(study, (0.5, 0.1), (0.6, 0.2), (0.7, 0.3), (0.8, 0.4))
    dominated, end, middle = reported(study, (0.55, 0.15), (0.1, 0.9), (0.65, 0.35))
    assert [study.is_poor(number) for number in (dominated, end, middle)] == [True, False, False]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_fronts_are_peeled_off_one_after_another(points: list[tuple[int, int]]) -> None:
    left, rank = set(points), 0
    found = dict(zip(points, front_ranks([(float(x), float(y)) for x, y in points]), strict=True))
    while left:
        edge = {p for p in left if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in left)}
        assert {found[point] for point in edge} == {rank}
        left, rank = left - edge, rank + 1


def test_leaders_and_the_front_are_of_those_that_were_trained_to_the_end(tmp_path: Path) -> None:
    study = opened(tmp_path, objectives=BOTH)
    assert (study.leaders(), study.front()) == ([], [])
    numbers = reported(study, (0.4, 0.4), (0.9, 0.9), (0.5, 0.2), (0.4, 0.3))
    for number in numbers:
        study.finish(number, TrialState.PRUNED if number == 1 else TrialState.COMPLETE)
    assert [trial.number for trial in study.leaders()] == [2, 0]
    assert [trial.number for trial in study.front()] == [0, 2]
    assert told(study.trials())[2] == ("COMPLETE", study.trials()[2].params, {5: 0.5}, (0.5, 0.2))


def test_a_search_of_several_objectives_goes_on_after_trials_that_were_stopped(tmp_path: Path) -> None:
    study = opened(tmp_path, objectives=BOTH)
    for number in range(30):
        proposal = study.ask()
        study.report(number, 5, values(score(proposal.params), 1 - score(proposal.params)))
        study.finish(number, TrialState.PRUNED if number % 3 else TrialState.COMPLETE)
    assert study.asked == 30


def test_a_trial_without_a_number_for_every_objective_is_neither_stopped_nor_complete(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    study = Study(record, 0, SPACE, BOTH)
    study.ask()
    job = started(record, 0)
    record.reported(job, Report(5, values=values(0.5, math.nan)))
    study.report(0, 5, values(0.5, math.nan))
    assert not study.is_poor(0)
    record.ended(job, "done", "")
    study.finish(0, TrialState.COMPLETE)
    assert told(study.trials()) == told(opened(tmp_path, objectives=BOTH).trials())
    assert [trial.state for trial in study.trials()] == [TrialState.FAIL]


def test_a_search_of_a_front_looks_where_the_defaults_are_not_undercut(tmp_path: Path) -> None:
    """Robust accuracy falls with the temperature and the tail rises with it; the defaults lie in the middle."""
    distances = []
    for preference in (None, Preference.read(None, BOTH)):
        far = list[float]()
        for seed in range(3):
            folder = tmp_path / f"{preference is None}-{seed}"
            folder.mkdir()
            study = Study(Record.open(folder), seed, SPACE, BOTH, preference)
            study.enqueue({"distill.temperature": 2.0, "balance.teacher_gamma": 10.0})
            for number in range(RANDOM_TRIALS + 24):
                place = math.log(float(study.ask().params["distill.temperature"] or 0))
                study.report(number, 5, values(0.7 - 0.1 * place, 0.4 + 0.1 * place))
                study.finish(number, TrialState.COMPLETE)
                far += [abs(place - math.log(2.0))] if number >= RANDOM_TRIALS + 4 else []
        distances.append(statistics.fmean(far))
    assert distances[1] < 0.7 * distances[0]


@pytest.mark.parametrize(("prefer", "floors"), [("tail>=0.6", (-math.inf, 0.6)), ("tail", None), (None, (0.7, 0.4))])
def test_what_points_should_reach_are_the_bounds_or_the_defaults(
    prefer: str | None, floors: tuple[float, ...] | None
) -> None:
    preference = Preference.read(prefer, BOTH)
    assert preference.floors((0.7, 0.4)) == floors
    assert preference.floors(()) == (None if prefer is None else floors)
