"""A study in a PostgreSQL database: as true as one in a file, and not harmed by other sweeps there."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from mlflow import MlflowClient
from optuna.exceptions import StorageInternalError
from optuna.pruners import NopPruner
from optuna.trial import TrialState
from postgres import PASSWORD, Postgres
from test_searcher import SPACE, recorded, told

from ltsd.errors import UserError
from sweeps.settings.flags import Settings
from sweeps.settings.sweep import Sweep
from sweeps.study import database
from sweeps.study.database import StudyDatabase, StudyFile, check_stores, place_of_study
from sweeps.study.searcher import Study, differences_of_study


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    found = Postgres()
    yield found
    found.remove()


@pytest.fixture
def uri(server: Postgres) -> str:
    return server.new_database()


def names(uri: str) -> list[str]:
    return sorted(optuna.get_all_study_names(uri))


@pytest.mark.slow
def test_a_study_there_is_the_study_of_a_file(uri: str, tmp_path: Path) -> None:
    """To the last bit of its numbers and proposals, whichever of the two a sweep goes on with."""
    record = recorded(tmp_path)
    places = (StudyFile(tmp_path), StudyDatabase(uri, "night-1"))
    studies = [Study.agreeing(record, place, 0, SPACE, NopPruner())[0] for place in places]
    for study, place in zip(studies, places, strict=True):
        assert told(study.trials()) == told(studies[0].trials())
        assert differences_of_study(place, record) == {}
    one, other = (study.ask() for study in studies)
    assert one == other
    for study in studies:
        study.report(4, 5, 1 / 3)
        study.finish(4, TrialState.COMPLETE, 1 / 3)
    in_file, there = (Study(place, 0, SPACE, NopPruner()).trials() for place in places)
    assert told(there) == told(in_file)
    assert there[4].value == 1 / 3


@pytest.mark.slow
def test_what_contradicts_the_journal_is_kept_under_another_name_and_no_other_sweep_is_touched(
    uri: str, tmp_path: Path
) -> None:
    record = recorded(tmp_path)
    place, neighbour = StudyDatabase(uri, "night-1"), StudyDatabase(uri, "night-2")
    before = told(Study.agreeing(record, place, 0, SPACE, NopPruner())[0].trials())
    with place.storage().engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE trial_intermediate_values SET intermediate_value = 0.99"))
    Study.agreeing(record, neighbour, 0, SPACE, NopPruner())
    assert "the study has the scores {5: 0.99" in differences_of_study(place, record)["trial-0000"][0]
    study, said = Study.agreeing(record, place, 0, SPACE, NopPruner())
    assert said.startswith("the study night-1 in postgresql://127.0.0.1:")
    assert said.endswith("was made again from the journal")
    assert told(study.trials()) == before
    assert differences_of_study(place, record) == differences_of_study(neighbour, record) == {}
    one, aside, two = names(uri)
    assert (one, aside.split("-1.damaged-")[0], two) == ("night-1", "night", "night-2")
    assert optuna.load_study(study_name=aside, storage=uri).trials[0].intermediate_values[5] == 0.99


@pytest.mark.slow
def test_a_database_that_mlflow_has_is_refused_and_stays_mlflows(uri: str, tmp_path: Path) -> None:
    """Both keep the version of their tables in a table of the same name."""
    with pytest.raises(UserError, match="give each a database of its own"):
        check_stores(Settings(study_uri=uri, tracking_uri=uri))
    MlflowClient(uri).search_experiments()
    version = sqlalchemy.text("SELECT version_num FROM alembic_version")
    engine = sqlalchemy.create_engine(uri)
    with engine.connect() as connection:
        before = connection.execute(version).all()
    with pytest.raises(UserError, match=r"Optuna cannot keep a study there .*give another database"):
        Study.agreeing(recorded(tmp_path), StudyDatabase(uri, "night-1"), 0, SPACE, NopPruner())
    with engine.connect() as connection:
        assert connection.execute(version).all() == before
    engine.dispose()


@pytest.mark.slow
def test_a_sweep_that_never_began_leaves_no_study(uri: str, tmp_path: Path) -> None:
    place = StudyDatabase(uri, "night-1")
    place.remove()
    Study(place, 0, SPACE, NopPruner())
    assert names(uri) == ["night-1"]
    place.remove()
    assert names(uri) == []


@pytest.mark.slow
def test_a_server_that_is_away_is_waited_for_and_no_longer_than_patience_lasts(
    server: Postgres, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    def say(text: str) -> None:
        """The first word of an outage is heard while it lasts; then the server comes back."""
        heard.append(text)
        if len(heard) == 1:
            server.start()

    record = recorded(tmp_path)
    study, _ = Study.agreeing(record, StudyDatabase(uri, "night-1", say), 0, SPACE, NopPruner())
    study.orphans()
    server.stop()
    study.report(3, 15, 0.5)
    assert Study(StudyDatabase(uri, "night-1"), 0, SPACE, NopPruner()).trials()[3].intermediate_values[15] == 0.5
    away, back = heard
    assert away == "the study's database does not answer; it is waited for, 60 s at most"
    assert back.startswith("the study's database answers again after ")
    server.stop()
    monkeypatch.setattr(database, "PATIENCE_S", 1.5)
    try:
        with pytest.raises(StorageInternalError) as caught:
            study.report(3, 20, 0.5)
        assert "Connection refused" in str(caught.value.__cause__)
        with pytest.raises(UserError, match=r"--study-uri postgresql://127\S*: PostgreSQL does not let us in there"):
            Study.agreeing(record, StudyDatabase(uri, "night-1"), 0, SPACE, NopPruner())
    finally:
        server.start()
    assert names(uri) == ["night-1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "right", "told"),
    [
        ("someone:", "somebody:", "password authentication failed"),
        ("test_", "toast_", "does not exist"),
        ("postgresql:", "postgres:", "give the flag as postgresql://USER:PASSWORD@HOST:PORT/DATABASE"),
        ("postgresql:", "postgresql+pg8000:", "its driver is not installed"),
    ],
)
@pytest.mark.parametrize("flag", ["study_uri", "tracking_uri"])
def test_an_address_that_leads_nowhere_is_refused_without_its_password(
    uri: str, flag: str, wrong: str, right: str, told: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_stores(replace(Settings(), **{flag: uri.replace(wrong, right)}))
    said = str(caught.value)
    assert said.startswith(f"--{flag.replace('_', '-')} postgres")
    assert told in said
    assert PASSWORD not in said
    assert "s3cret" not in said


def test_a_driver_that_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"its driver is not installed .*pip install .*'\.\[postgres\]'"):
        check_stores(Settings(study_uri="postgresql://me:s3cret@127.0.0.1/night"))


def test_another_kind_of_database_is_refused() -> None:
    with pytest.raises(UserError, match=r"--study-uri mysql://host/night: must be a PostgreSQL database"):
        check_stores(Settings(study_uri="mysql://me:s3cret@host/night"))


def test_sweeps_of_the_same_name_have_studies_of_their_own(tmp_path: Path) -> None:
    """The same sweep keeps its own, also where it is resumed; without a database it is the file in its folder."""
    given = {"name": "night", "study_uri": "postgresql://me:s3cret@host/studies"}
    sweeps = [Sweep.new(given | {"storage": str(tmp_path / storage)}, {}) for storage in ("one", "two")]
    for sweep in sweeps:
        with sweep.claimed():
            sweep.keep()
    resumed = Sweep.resumed({"name": "night", "storage": str(tmp_path / "one")}, {})
    one, two, again = (place_of_study(sweep) for sweep in (*sweeps, resumed))
    assert one.study == again.study != two.study
    assert str(again) == f"the study {one.study} in postgresql://host/studies"
    back = Sweep.resumed({"name": "night", "storage": str(tmp_path / "one"), "study_uri": ""}, {})
    assert place_of_study(back) == StudyFile((tmp_path / "one" / "night").absolute())
