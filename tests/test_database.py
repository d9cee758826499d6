"""A study in a PostgreSQL database: as true as one in a file, and not harmed by other sweeps there."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from mlflow import MlflowClient
from optuna.trial import TrialState
from postgres import PASSWORD, Postgres
from test_searcher import ROBUST, SPACE, recorded, told, values

from ltsd.errors import UserError
from sweeps.settings.flags import Settings
from sweeps.settings.sweep import Sweep
from sweeps.study.database import StudyDatabase, StudyFile, check_stores, study_storage_of
from sweeps.study.export import StudyExport
from sweeps.study.searcher import Study
from sweeps.study.stored import StoredStudy


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


def stored(place: StudyDatabase, said: list[str] | None = None) -> StoredStudy:
    return StoredStudy(place, ROBUST, (said if said is not None else []).append)


@pytest.mark.slow
def test_what_contradicts_the_journal_is_kept_under_another_name_and_no_other_sweep_is_touched(
    uri: str, tmp_path: Path
) -> None:
    trials, said = Study(recorded(tmp_path), 0, SPACE, ROBUST).trials(), list[str]()
    place, neighbour = StudyDatabase(uri, "night-1"), StudyDatabase(uri, "night-2")
    stored(place).bring(trials)
    assert told(optuna.load_study(study_name="night-1", storage=uri).trials) == told(trials)
    with place.storage().engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE trial_intermediate_values SET intermediate_value = 0.99"))
    stored(neighbour).bring(trials)
    assert "the study has the scores {5: 0.99" in stored(place).differences(trials)["trial-0000"][0]
    stored(place, said).bring(trials)
    assert said[0].startswith("the study night-1 in postgresql://127.0.0.1:")
    assert said[0].endswith("was made again from the journal")
    assert stored(place).differences(trials) == stored(neighbour).differences(trials) == {}
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
        stored(StudyDatabase(uri, "night-1")).bring([])
    with engine.connect() as connection:
        assert connection.execute(version).all() == before
    engine.dispose()


@pytest.mark.slow
def test_a_sweep_that_never_began_leaves_no_study(uri: str, tmp_path: Path) -> None:
    place = StudyDatabase(uri, "night-1")
    place.remove()
    stored(place).bring([])
    assert names(uri) == ["night-1"]
    place.remove()
    assert names(uri) == []


@pytest.mark.slow
def test_a_server_that_is_away_holds_up_nothing_and_gets_all_of_it_when_it_is_back(
    server: Postgres, uri: str, tmp_path: Path
) -> None:
    said = list[str]()
    study = Study(recorded(tmp_path), 0, SPACE, ROBUST)
    export = StudyExport([study], [StudyDatabase(uri, "night-1")], said.append)
    server.stop()
    with pytest.raises(UserError, match=r"--study-uri postgresql://127\S*: PostgreSQL does not let us in there"):
        export.begin()
    export.open()
    number = study.ask().number
    study.report(number, 5, values(0.5))
    study.finish(number, TrialState.COMPLETE)
    while not said:
        time.sleep(0.05)
    server.start()
    export.close(patience_s=30)
    assert told(optuna.load_study(study_name="night-1", storage=uri).trials) == told(study.trials())
    assert said[0] == "the study's database does not answer; the sweep goes on and what it misses is kept for it"
    assert said[1].startswith("the study's database answers again after ")


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
    address = uri.replace(wrong, right)
    opening = {
        "tracking_uri": lambda: check_stores(Settings(tracking_uri=address)),
        "study_uri": lambda: stored(StudyDatabase(address, "night-1")).bring([]),
    }
    with pytest.raises(UserError) as caught:
        opening[flag]()
    said = str(caught.value)
    assert said.startswith(f"--{flag.replace('_', '-')} postgres")
    assert told in said
    assert PASSWORD not in said
    assert "s3cret" not in said


def test_a_driver_that_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"its driver is not installed .*pip install .*'\.\[postgres\]'"):
        stored(StudyDatabase("postgresql://me:s3cret@127.0.0.1/night", "night-1")).bring([])


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
    one, two, again = (study_storage_of(sweep) for sweep in (*sweeps, resumed))
    assert one.study == again.study != two.study
    assert str(again) == f"the study {one.study} in postgresql://host/studies"
    back = Sweep.resumed({"name": "night", "storage": str(tmp_path / "one"), "study_uri": ""}, {})
    assert study_storage_of(back) == StudyFile((tmp_path / "one" / "night").absolute())
