"""Whatever keeps MLflow's records from being kept is told with its own remedy; real databases, real servers."""

import contextlib
import http.server
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ltsd.config import Config
from ltsd.data import Splits
from ltsd.errors import UserError
from sweeps.tracking.view import MlflowView


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real MLflow database with the experiment of the digits."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").create_experiment("ltsd-digits")
    return path


@pytest.fixture
def told(small: Config, splits: Splits) -> Callable[[str], str]:
    def of(uri: str) -> str:
        with pytest.raises(UserError) as caught:
            MlflowView(uri, "night", "1", small, splits, {}).open()
        return str(caught.value)

    return of


def binned(path: Path) -> str:
    MlflowClient(f"sqlite:///{path}").delete_experiment("1")
    return f"sqlite:///{path}"


def at_version(version: str) -> Callable[[Path], str]:
    def change(path: Path) -> str:
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute(f"update alembic_version set version_num = '{version}'")
            database.commit()
        return f"sqlite:///{path}"

    return change


def of_another_program(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as database:
        for (name,) in database.execute("select name from sqlite_master where type = 'table'").fetchall():
            if name not in ("alembic_version", "sqlite_sequence"):
                database.execute(f"drop table {name}")
        database.execute("update alembic_version set version_num = 'v3.0.0.d'")
        database.commit()
    return f"sqlite:///{path}"


def overwritten(path: Path) -> str:
    path.write_text("neither tables nor pages\n" * 200)
    return f"sqlite:///{path}"


def read_only(path: Path) -> str:
    return f"sqlite:///file:{path}?mode=ro&uri=true"


@pytest.mark.parametrize(
    ("spoiled", "what", "remedy"),
    [
        (binned, "the experiment ltsd-digits is in MLflow's bin", "mlflow experiments restore --experiment-id 1"),
        (at_version("0a8213491aaa"), "of an older MLflow", "keep a copy of it, then run: mlflow db upgrade sqlite:///"),
        (at_version("abcdefabcdef"), "most likely a newer one", "use the MLflow that wrote it"),
        (of_another_program, "the database is none of MLflow's", "give another --tracking-uri"),
        (overwritten, "the file is no database, or damaged", "move it away"),
        (read_only, "it cannot be written", "make the file and its folder writable"),
        (lambda path: "sqlite:////proc/none/mlflow.db", "its folder cannot be used", "make the folder"),
        (lambda path: "foo://x", "keeps no records at such an address", "give http://HOST:PORT"),
        (lambda path: "http://a:secret@127.0.0.1:9", "MLflow does not answer there", "start the server"),
    ],
)
def test_a_fault_of_the_place(
    spoiled: Callable[[Path], str],
    what: str,
    remedy: str,
    whole: Path,
    tmp_path: Path,
    told: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # MLflow makes a folder of the name of a database that is given as file:...
    said = told(spoiled(Path(shutil.copy(whole, tmp_path / "mlflow.db"))))
    assert said.startswith("--tracking-uri ")
    assert what in said
    assert remedy in said
    assert "secret" not in said


class Page(http.server.BaseHTTPRequestHandler):
    """Answers everything with a page."""

    code: int

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        page = b"<html><body>Welcome</body></html>"
        self.send_response(self.code)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def answering(code: int) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Answering", (Page,), {"code": code})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("code", "what", "remedy"),
    [
        (200, "what answers is no MLflow", "give the address of an `mlflow server`"),
        (401, "the login is refused", "set MLFLOW_TRACKING_USERNAME"),
        (403, "the login may not do that", "use one that may create experiments"),
        (404, "what answers is no MLflow", "give the address of an `mlflow server`"),
        (500, "the server fails", "look into its log"),
    ],
)
def test_a_fault_of_the_server(code: int, what: str, remedy: str, told: Callable[[str], str]) -> None:
    with answering(code) as uri:
        said = told(uri)
    assert what in said
    assert remedy in said


def test_what_mlflow_says_is_not_cut_off(whole: Path, tmp_path: Path, told: Callable[[str], str]) -> None:
    said = told(at_version("abcdefabcdef")(Path(shutil.copy(whole, tmp_path / "mlflow.db"))))
    assert "please consult your database's documentation for more detail.);" in said
