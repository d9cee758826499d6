"""The study as other programs read it: a view of the record, late where its place is away, and never in the way."""

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import optuna
import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import OperationalError
from test_searcher import BOTH, ROBUST, SPACE, opened, recorded, reported, told, values

from sweeps.study.database import STUDY_FILE, StudyFile
from sweeps.study.export import StudyExport
from sweeps.study.searcher import Study
from sweeps.study.stored import StoredStudy


def on_file(folder: Path) -> list[FrozenTrial]:
    """What any other program finds in the file."""
    return optuna.load_study(study_name="sweep", storage=f"sqlite:///{folder / STUDY_FILE}").trials


def stored(folder: Path, said: list[str] | None = None) -> StoredStudy:
    return StoredStudy(StudyFile(folder), ROBUST, (said if said is not None else []).append)


class Listening(StudyFile):
    """A file that notes the statements that change it."""

    heard: ClassVar[list[str]] = []

    def storage(self) -> RDBStorage:
        storage = super().storage()
        sqlalchemy.event.listen(storage.engine, "before_cursor_execute", self._note)
        return storage

    def _note(self, *told: object) -> None:
        statement = str(told[2])
        if not statement.startswith(("SELECT", "PRAGMA", "INSERT INTO studies ")):
            self.heard.append(statement)


def test_what_lies_there_is_the_study_at_every_moment_and_nothing_is_written_twice(tmp_path: Path) -> None:
    study, there = opened(tmp_path, objectives=BOTH), StoredStudy(Listening(tmp_path), BOTH, print)
    moments: list[Callable[[], object]] = [
        lambda: [study.ask() for _ in range(4)],
        lambda: [study.report(number, 5, values(number / 10)) for number in range(3)],
        lambda: study.report(0, 10, values(0.5)),
        lambda: study.finish(0, TrialState.COMPLETE),
        lambda: study.finish(1, TrialState.PRUNED),
        lambda: study.finish(2, TrialState.FAIL),
    ]
    for act in moments:
        act()
        there.bring(study.trials())
        assert told(on_file(tmp_path)) == told(study.trials())
        assert there.differences(study.trials()) == {}
        Listening.heard.clear()
        there.bring(study.trials())
        StoredStudy(Listening(tmp_path), BOTH, print).bring(study.trials())
        assert Listening.heard == []


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


def add(path: Path) -> None:
    """A trial that nobody here proposed."""
    optuna.load_study(study_name="sweep", storage=f"sqlite:///{path}").enqueue_trial({})


@pytest.mark.parametrize("damage", [Path.unlink, damage_nothing, cut, garble, lie, add])
def test_it_is_made_from_the_record_whatever_became_of_its_file(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    trials, said = Study(recorded(tmp_path), 0, SPACE, ROBUST).trials(), list[str]()
    stored(tmp_path).bring(trials)
    damage(tmp_path / STUDY_FILE)
    is_right = damage == damage_nothing
    assert (stored(tmp_path).differences(trials) == {}) == is_right
    stored(tmp_path, said).bring(trials)
    assert told(on_file(tmp_path)) == told(trials)
    assert stored(tmp_path).differences(trials) == {}
    is_kept = damage in (cut, garble, lie, add)
    assert [" and was made again from the journal" in one for one in said] == [True] * is_kept
    assert bool(list(tmp_path.glob("study.db.damaged-*"))) == is_kept


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


def test_what_was_written_although_the_answer_was_lost_is_there_once(tmp_path: Path) -> None:
    study, there = opened(tmp_path), StoredStudy(Forgetful(tmp_path), ROBUST, print)
    there.bring([])
    for act in (
        study.ask,
        lambda: study.report(0, 5, values(0.4)),
        lambda: study.finish(0, TrialState.COMPLETE),
    ):
        act()
        Forgetful.forgets = True
        with contextlib.suppress(Exception):
            there.bring(study.trials())
        assert not Forgetful.forgets
        there.bring(study.trials())
        assert told(on_file(tmp_path)) == told(study.trials())


def test_a_place_that_cannot_be_written_holds_up_nothing_and_gets_all_of_it_later(tmp_path: Path) -> None:
    study, said = opened(tmp_path), list[str]()
    export = StudyExport([study], [StudyFile(tmp_path)], said.append)
    export.begin()
    export.open()
    with contextlib.closing(sqlite3.connect(tmp_path / STUDY_FILE, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        before = time.monotonic()
        number = study.ask().number
        study.report(number, 5, values(0.5))
        study.finish(number, TrialState.COMPLETE)
        export._put()
        assert time.monotonic() - before < 1
    export.close(patience_s=30)
    assert told(on_file(tmp_path)) == told(study.trials())
    assert said == []


def test_a_study_of_other_objectives_is_set_aside(tmp_path: Path) -> None:
    stored(tmp_path).bring([])
    study, said = opened(tmp_path, objectives=BOTH), list[str]()
    (number,) = reported(study, (0.5, 0.4))
    study.finish(number, TrialState.COMPLETE)
    StoredStudy(StudyFile(tmp_path), BOTH, said.append).bring(study.trials())
    there = optuna.load_study(study_name="sweep", storage=f"sqlite:///{tmp_path / STUDY_FILE}")
    assert (there.metric_names, there.best_trials[0].values) == (["robust", "tail"], [0.5, 0.4])
    assert "it maximises ['robust'], the sweep ['robust', 'tail']) and was made again" in said[0]
