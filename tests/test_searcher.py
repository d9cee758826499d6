"""The search: made from the record alone, with proposals that can be had again."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial, TrialState

from ltsd.config import Config
from ltsd.errors import UserError
from ltsd.knobs import Value
from sweeps.journal.jobs import Job, Report
from sweeps.journal.record import Outcome, Record
from sweeps.study.searcher import OBJECTIVE, STATES, Proposal, Study

SPACE: Mapping[str, BaseDistribution] = {
    "distill.temperature": FloatDistribution(0.5, 8.0, log=True),
    "balance.teacher_gamma": CategoricalDistribution([1.0, 5.0, 10.0]),
}


def opened(folder: Path, seed: int = 0, pruner: BasePruner | None = None) -> Study:
    """A study of what is on record in a folder, as a process has it that begins there."""
    return Study(Record.open(folder), seed, SPACE, pruner or NopPruner())


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
            record.reported(job, Report(epoch, values={OBJECTIVE: (10 * number + epoch) / 100}))
        if outcome is not None:
            record.ended(job, outcome, "")
    return record


def started(record: Record, number: int) -> Job:
    config = Config().override(record.proposals[number])
    job = Job("trial", f"trial-{number:04d}", config, "train", "runs")
    record.started(job, 0)
    return job


def told(trials: list[FrozenTrial]) -> list[tuple[str, dict[str, object], dict[int, float], float | None]]:
    return [(trial.state.name, dict(trial.params), trial.intermediate_values, trial.value) for trial in trials]


def test_a_study_is_what_the_record_has(tmp_path: Path) -> None:
    study = Study(recorded(tmp_path), 0, SPACE, NopPruner())
    points = [{"distill.temperature": 1.0 + number, "balance.teacher_gamma": 5.0} for number in range(4)]
    assert told(study.trials()) == [
        ("COMPLETE", points[0], {5: 0.05, 10: 0.1}, 0.1),
        ("PRUNED", points[1], {5: 0.15, 10: 0.2}, None),
        ("FAIL", points[2], {5: 0.25, 10: 0.3}, None),
        ("RUNNING", points[3], {5: 0.35, 10: 0.4}, None),
    ]
    assert study.asked == 4
    assert [trial.number for trial in study.finished()] == [0, 1, 2]
    assert study.orphans() == [Proposal(3, points[3])]
    assert study.orphans() == []


def test_what_is_told_while_it_runs_is_what_the_next_process_finds(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    study = Study(record, 0, SPACE, NopPruner())
    for number, outcome in enumerate(("done", "pruned", "failed", None)):
        assert study.ask().number == number
        job = started(record, number)
        record.reported(job, Report(5, values={OBJECTIVE: 0.5}))
        study.report(number, 5, 0.5)
        if outcome is not None:
            record.ended(job, outcome, "")
            study.finish(number, STATES[outcome], 0.5)
            study.finish(number, TrialState.FAIL)
    assert told(opened(tmp_path).trials()) == told(study.trials())


def test_a_proposal_is_on_record_before_it_is_returned(tmp_path: Path) -> None:
    proposal = opened(tmp_path).ask()
    assert Record.read(tmp_path).proposals == {0: proposal.params}
    assert opened(tmp_path).orphans() == [proposal]


def test_a_trial_whose_proposal_a_damaged_journal_lost_is_known_by_its_job_or_has_failed(tmp_path: Path) -> None:
    record = recorded(tmp_path)
    before = told(Study(record, 0, SPACE, NopPruner()).trials())
    del record.proposals[1]
    assert told(Study(record, 0, SPACE, NopPruner()).trials()) == before
    del record.jobs["trial-0001"]
    found = told(Study(record, 0, SPACE, NopPruner()).trials())
    assert found == [before[0], ("FAIL", {}, {}, None), *before[2:]]


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
        Study(recorded(tmp_path), 0, space, NopPruner())


def proposals_of(folder: Path, seed: int, reopen: bool, bonus: float = 0.0) -> list[Proposal]:
    """Nine proposals, each asked for while the one before still runs; `bonus` changes what was measured."""
    folder.mkdir()
    record = Record.open(folder)
    study, found, running = Study(record, seed, SPACE, NopPruner()), list[Proposal](), list[Proposal]()
    for number in range(9):
        if reopen and number > 4:
            record = Record.open(folder)
            study = Study(record, seed, SPACE, NopPruner())
            study.orphans()
        found.append(study.ask())
        running.append(found[-1])
        if len(running) > 1:
            done = running.pop(0)
            value = score(done.params) * (-1 if bonus else 1) + bonus
            job = started(record, done.number)
            record.reported(job, Report(5, values={OBJECTIVE: value}))
            study.report(done.number, 5, value)
            record.ended(job, "done", "")
            study.finish(done.number, TrialState.COMPLETE, value)
    return found


def test_proposals_depend_on_the_seed_the_number_and_the_history_alone(tmp_path: Path) -> None:
    first = proposals_of(tmp_path / "one", seed=0, reopen=False)
    assert [proposal.number for proposal in first] == list(range(9))
    assert proposals_of(tmp_path / "again", seed=0, reopen=True) == first
    (tmp_path / "seed").mkdir()
    assert opened(tmp_path / "seed", seed=1).ask().params != first[0].params
    otherwise = proposals_of(tmp_path / "history", seed=0, reopen=False, bonus=2.0)
    assert otherwise[:6] == first[:6]
    assert otherwise[7:] != first[7:]


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


def test_the_pruner_compares_at_the_same_epoch(tmp_path: Path) -> None:
    study = opened(tmp_path, pruner=MedianPruner(n_startup_trials=2, n_warmup_steps=0))
    for value in (0.5, 0.6):
        number = study.ask().number
        study.report(number, 5, value)
        study.report(number, 10, value + 0.2)
        assert not study.is_poor(number)
        study.finish(number, TrialState.COMPLETE, value + 0.2)
    good, poor = study.ask().number, study.ask().number
    study.report(good, 5, 0.58)
    study.report(poor, 5, 0.52)
    assert not study.is_poor(good)
    assert study.is_poor(poor)


def test_the_best_trial_is_the_best_of_those_that_were_trained_to_the_end(tmp_path: Path) -> None:
    study = opened(tmp_path)
    assert study.best() is None
    for value, state in ((0.4, TrialState.COMPLETE), (0.9, TrialState.PRUNED), (0.5, TrialState.COMPLETE)):
        number = study.ask().number
        study.report(number, 5, value)
        study.finish(number, state, value if state == TrialState.COMPLETE else None)
    best = study.best()
    assert best is not None
    assert (best.number, best.value) == (2, 0.5)
