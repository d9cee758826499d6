"""The study: a record that is true whatever happens, and proposals that can be had again."""

import contextlib
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import optuna
import pytest
import sqlalchemy
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import OperationalError

from ltsd.config import Config
from ltsd.knobs import Value
from sweeps.journal.jobs import Job, Report
from sweeps.journal.record import Outcome, Record
from sweeps.study.database import STUDY_FILE, StudyFile
from sweeps.study.searcher import OBJECTIVE, Proposal, Study, differences_of_study

SPACE: Mapping[str, BaseDistribution] = {
    "distill.temperature": FloatDistribution(0.5, 8.0, log=True),
    "balance.teacher_gamma": CategoricalDistribution([1.0, 5.0, 10.0]),
}


def opened(folder: Path, seed: int = 0, pruner: BasePruner | None = None) -> Study:
    return Study(StudyFile(folder), seed, SPACE, pruner or NopPruner())


def on_file(folder: Path) -> list[FrozenTrial]:
    """What any other program finds in the file."""
    return optuna.load_study(study_name="sweep", storage=f"sqlite:///{folder / STUDY_FILE}").trials


def score(params: Mapping[str, Value]) -> float:
    temperature, gamma = params["distill.temperature"], params["balance.teacher_gamma"]
    assert isinstance(temperature, float)
    assert isinstance(gamma, float)
    return 1 / (1 + (temperature - 2) ** 2 + gamma / 10)


def test_every_end_of_a_trial_is_told_truly(tmp_path: Path) -> None:
    study = opened(tmp_path)
    proposals = [study.ask() for _ in range(4)]
    for epoch, value in ((5, 0.25), (10, 0.5)):
        for number in (0, 1, 2):
            study.report(number, epoch, value + number / 100)
    study.finish(0, TrialState.COMPLETE, 0.5)
    study.finish(1, TrialState.PRUNED)
    study.finish(2, TrialState.FAIL)
    found = on_file(tmp_path)
    assert [trial.state.name for trial in found] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert [trial.params for trial in found] == [proposal.params for proposal in proposals]
    assert [trial.intermediate_values for trial in found[:3]] == [
        {5: 0.25 + number / 100, 10: 0.5 + number / 100} for number in range(3)
    ]
    assert found[0].value == 0.5
    assert study.asked == 4
    assert [trial.number for trial in study.finished()] == [0, 1, 2]


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_telling_twice_changes_nothing(tmp_path: Path, state: TrialState) -> None:
    study = opened(tmp_path)
    study.report(study.ask().number, 5, 0.3)
    study.finish(0, state, 0.3 if state == TrialState.COMPLETE else None)
    before = on_file(tmp_path)
    study.finish(0, TrialState.COMPLETE, 0.9)
    study.finish(0, TrialState.FAIL)
    opened(tmp_path).finish(0, TrialState.PRUNED)
    assert on_file(tmp_path) == before
    assert study.asked == 1


def test_trials_that_a_killed_process_left_are_taken_over_and_nothing_stays_running(tmp_path: Path) -> None:
    killed = opened(tmp_path)
    left = [killed.ask(), killed.ask(), killed.ask()]
    killed.report(1, 5, 0.4)
    killed.finish(1, TrialState.COMPLETE, 0.4)
    study = opened(tmp_path)
    assert study.orphans() == [left[0], left[2]]
    assert study.orphans() == []
    assert study.asked == 3
    study.report(0, 5, 0.6)
    study.finish(0, TrialState.COMPLETE, 0.6)
    study.finish(2, TrialState.FAIL)
    assert [trial.state.name for trial in on_file(tmp_path)] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert opened(tmp_path).orphans() == []


def proposals_of(folder: Path, seed: int, reopen: bool, bonus: float = 0.0) -> list[Proposal]:
    """Nine proposals, each asked for while the one before still runs; `bonus` changes what was measured."""
    study, found, running = opened(folder, seed), list[Proposal](), list[Proposal]()
    for number in range(9):
        if reopen and number > 4:
            study = opened(folder, seed)
            study.orphans()
        found.append(study.ask())
        running.append(found[-1])
        if len(running) > 1:
            done = running.pop(0)
            study.finish(done.number, TrialState.COMPLETE, score(done.params) * (-1 if bonus else 1) + bonus)
    return found


def test_proposals_depend_on_the_seed_the_number_and_the_history_alone(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "again", "seed", "history")]
    for folder in folders:
        folder.mkdir()
    first = proposals_of(folders[0], seed=0, reopen=False)
    assert [proposal.number for proposal in first] == list(range(9))
    assert proposals_of(folders[1], seed=0, reopen=True) == first
    assert opened(folders[2], seed=1).ask().params != first[0].params
    otherwise = proposals_of(folders[3], seed=0, reopen=False, bonus=2.0)
    assert otherwise[:6] == first[:6]
    assert otherwise[7:] != first[7:]


class Listening(StudyFile):
    """A file that notes the statements put to it, and the ends of transactions."""

    heard: ClassVar[list[str]] = []

    def storage(self) -> RDBStorage:
        storage = super().storage()
        sqlalchemy.event.listen(storage.engine, "before_cursor_execute", lambda *told: self.heard.append(told[2]))
        sqlalchemy.event.listen(storage.engine, "commit", lambda _: self.heard.append("COMMIT"))
        return storage


def test_a_trial_is_written_in_one_transaction_and_no_other_is_read_for_it(tmp_path: Path) -> None:
    """Whole or not at all, by the same statements with a hundred trials running as with one."""
    study = Study(Listening(tmp_path), 0, SPACE, MedianPruner(n_startup_trials=1, n_warmup_steps=0))
    study.finish(study.ask().number, TrialState.COMPLETE, 0.5)
    statements = []
    for number in range(1, 101):
        Listening.heard.clear()
        assert study.ask().number == number
        assert Listening.heard.index("COMMIT") > max(
            place for place, statement in enumerate(Listening.heard) if not statement.startswith(("SELECT", "COMMIT"))
        )
        study.report(number, 5, 0.4)
        study.is_poor(number)
        statements.append(list(Listening.heard))
    assert statements[-1] == statements[0]


class Forgetful(StudyFile):
    """A file of which one commit is done and looks like it was not, as where a connection breaks under its answer."""

    forgets: ClassVar[bool] = False

    def storage(self) -> RDBStorage:
        storage = super().storage()
        sqlalchemy.event.listen(storage.engine, "commit", self._commit)
        return storage

    def _commit(self, connection: sqlalchemy.Connection) -> None:
        if self.forgets:
            Forgetful.forgets = False
            connection.connection.commit()
            raise OperationalError("COMMIT", None, Exception("connection lost"))


def test_what_was_written_although_the_answer_was_lost_is_written_once(tmp_path: Path) -> None:
    study = Study(Forgetful(tmp_path), 0, SPACE, NopPruner())
    number = study.ask().number
    Forgetful.forgets = True
    study.report(number, 5, 0.4)
    assert not Forgetful.forgets
    Forgetful.forgets = True
    study.finish(number, TrialState.COMPLETE, 0.5)
    assert not Forgetful.forgets
    (found,) = on_file(tmp_path)
    assert (found.state, found.intermediate_values, found.value) == (TrialState.COMPLETE, {5: 0.4}, 0.5)


def test_somebody_else_who_adds_a_trial_is_noticed(tmp_path: Path) -> None:
    study = opened(tmp_path)
    opened(tmp_path).ask()
    with pytest.raises(StorageInternalError, match="has a trial 0 already: somebody else writes there"):
        study.ask()


def test_a_point_that_was_enqueued_is_tried_first_and_once(tmp_path: Path) -> None:
    published: dict[str, Value] = {"distill.temperature": 1.0, "balance.teacher_gamma": 10.0}
    study = opened(tmp_path)
    study.enqueue(published)
    assert study.asked == 0
    study.enqueue(published)
    assert study.ask() == Proposal(0, published)
    study.finish(0, TrialState.COMPLETE, 0.5)
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


def recorded(folder: Path) -> Record:
    """A record of four trials: done, pruned, failed, and one that is not over."""
    record = Record.open(folder)
    outcomes: tuple[Outcome | None, ...] = ("done", "pruned", "failed", None)
    for number, outcome in enumerate(outcomes):
        record.proposed(number, {"distill.temperature": 1.0 + number, "balance.teacher_gamma": 5.0})
        job = Job("trial", f"trial-{number:04d}", Config(), "train", str(folder.absolute()))
        record.started(job, 0)
        for epoch in (5, 10):
            record.reported(job, Report(epoch, values={OBJECTIVE: number / 10 + epoch / 100}))
        if outcome is not None:
            record.ended(job, outcome, "")
    return record


def told(trials: list[FrozenTrial]) -> list[tuple[str, dict[str, object], dict[int, float], float | None]]:
    return [(trial.state.name, dict(trial.params), trial.intermediate_values, trial.value) for trial in trials]


def damage_nothing(path: Path) -> None:
    pass


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def garble(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)


def lie(path: Path) -> None:
    """A value of another kind than the journal has, in a database that is whole."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE trial_intermediate_values SET intermediate_value = 0.99")


@pytest.mark.parametrize("damage", [Path.unlink, damage_nothing, cut, garble, lie])
def test_a_study_is_brought_in_line_with_the_record_whatever_became_of_its_file(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    record = recorded(tmp_path)
    study, said = Study.agreeing(record, StudyFile(tmp_path), 0, SPACE, NopPruner())
    assert said == ""
    before = told(on_file(tmp_path))
    assert [state for state, *_ in before] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert before[0][2:] == ({5: 0.05, 10: 0.1}, 0.1)
    assert differences_of_study(StudyFile(tmp_path), record) == {}
    del study
    damage(tmp_path / STUDY_FILE)
    study, said = Study.agreeing(record, StudyFile(tmp_path), 0, SPACE, NopPruner())
    assert told(on_file(tmp_path)) == before
    assert [orphan.number for orphan in study.orphans()] == [3]
    if damage in (cut, garble, lie):
        assert "was made again from the journal" in said
        assert list(tmp_path.glob("study.db.damaged-*"))


def test_a_trial_that_nobody_here_proposed_is_none_of_the_study(tmp_path: Path) -> None:
    record = recorded(tmp_path)
    Study.agreeing(record, StudyFile(tmp_path), 0, SPACE, NopPruner())
    before = told(on_file(tmp_path))
    optuna.load_study(study_name="sweep", storage=f"sqlite:///{tmp_path / STUDY_FILE}").enqueue_trial({})
    assert differences_of_study(StudyFile(tmp_path), record) == {"trial-0004": ["the journal lacks it"]}
    _, said = Study.agreeing(record, StudyFile(tmp_path), 0, SPACE, NopPruner())
    assert "trial 4 has {} here, which was never proposed) and was made again from the journal" in said
    assert told(on_file(tmp_path)) == before


def test_what_a_killed_process_put_on_record_and_did_not_tell_is_told(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    study = opened(tmp_path)
    proposal = study.ask()
    assert differences_of_study(StudyFile(tmp_path), record) == {"trial-0000": ["the journal lacks it"]}
    study, _ = Study.agreeing(record, StudyFile(tmp_path), 0, SPACE, NopPruner())
    assert record.proposals == {0: proposal.params}
    job = Job("trial", "trial-0000", Config(), "train", str(tmp_path.absolute()))
    record.started(job, 0)
    record.reported(job, Report(5, values={OBJECTIVE: 0.5}))
    record.ended(job, "done", "")
    assert len(differences_of_study(StudyFile(tmp_path), record)["trial-0000"]) == 2
    study, said = Study.agreeing(record, StudyFile(tmp_path), 0, SPACE, NopPruner())
    assert said == ""
    assert told(on_file(tmp_path)) == [("COMPLETE", proposal.params, {5: 0.5}, 0.5)]


def test_a_trial_that_is_there_twice_since_its_answer_was_lost_is_tried_once(tmp_path: Path) -> None:
    """Optuna writes it again by itself, and so it has another number than was thought."""
    record = recorded(tmp_path)
    study = Study(Forgetful(tmp_path), 0, SPACE, NopPruner())
    study.adopt(record)
    before = told(on_file(tmp_path))
    Forgetful.forgets = True
    with pytest.raises(StorageInternalError, match="somebody else writes there"):
        study.ask()
    assert len(on_file(tmp_path)) == len(before) + 2
    study, said = Study.agreeing(record, StudyFile(tmp_path), 0, SPACE, NopPruner())
    assert "was made again from the journal" in said
    assert told(on_file(tmp_path)) == before


def test_a_study_that_is_ahead_of_a_journal_made_again_from_a_bucket_is_made_again(tmp_path: Path) -> None:
    """So that the trial goes on from its checkpoint, and all of its epochs come on record."""
    record = Record.open(tmp_path)
    study = opened(tmp_path)
    record.proposed(0, study.ask().params)
    record.started(Job("trial", "trial-0000", Config(), "train", str(tmp_path.absolute())), 0)
    record.reported(record.jobs["trial-0000"].job, Report(5, values={OBJECTIVE: 0.25}))
    for epoch, value in ((5, 0.25), (10, 0.5)):
        study.report(0, epoch, value)
    study.finish(0, TrialState.COMPLETE, 0.5)
    study, said = Study.agreeing(record, StudyFile(tmp_path), 0, SPACE, NopPruner())
    assert "trial 0 has scores that the journal lacks) and was made again from the journal" in said
    assert [orphan.number for orphan in study.orphans()] == [0]
    assert record.jobs["trial-0000"].outcome is None
