"""Study and MLflow on a PostgreSQL server that goes away: the sweep goes on, and no password is left anywhere."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from background import Sweep, audit
from kills import NAME, SHORT
from postgres import Postgres
from serving import Server

pytestmark = pytest.mark.slow
FEW = (*SHORT, "--trials", "2", "--epochs", "6", "--teacher.epochs", "2", "--references", "at")


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    found = Postgres()
    yield found
    found.remove()


def test_a_sweep_on_postgresql_outlives_an_outage_and_an_interruption(tmp_path: Path, postgres: Postgres) -> None:
    """MLflow is written to directly at first, after the interruption through a server on the same database."""
    study, records = postgres.new_database(), postgres.new_database()
    sweep = Sweep(tmp_path, *FEW, "--study-uri", study, "--tracking-uri", records)
    sweep.until("trial-0001 starts")
    postgres.stop()
    sweep.until("the study's database does not answer; the sweep goes on")
    sweep.until("MLflow does not answer; the sweep goes on")
    sweep.until("trial-0001 done")
    postgres.start()
    sweep.until("the study's database answers again")
    sweep.until("MLflow answers again")
    assert "Traceback" not in sweep.said()
    sweep.process.send_signal(signal.SIGTERM)
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server", records)
    try:
        assert sweep.process.wait(20) == 130, sweep.said()
        assert f" --study-uri postgresql://USER:PASSWORD@127.0.0.1:{postgres.port}/" in sweep.said()
        stores = ("--study-uri", study, "--tracking-uri", server.uri)
        sweep = Sweep(tmp_path, "--resume", *stores)
        assert sweep.process.wait(240) == 0, sweep.said()
        agreed = audit(tmp_path, *stores)
        assert agreed.returncode == 0, agreed.stdout + agreed.stderr
    finally:
        server.send(signal.SIGKILL)
    assert not (tmp_path / "runs" / NAME / "study.db").exists()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes(), path
    assert not any("s3cret" in postgres.dump(uri) for uri in (study, records))
