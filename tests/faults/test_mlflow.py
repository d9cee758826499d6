"""MLflow away, slow or wrong: training goes on, and when it answers again it has everything once."""

import contextlib
import http.server
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from background import LONG, Sweep, audit
from serving import Server

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    yield server
    server.send(signal.SIGKILL)


class Broken(http.server.BaseHTTPRequestHandler):
    """Answers everything with 500."""

    def do_POST(self) -> None:
        self.send_error(500)

    do_GET = do_PUT = do_PATCH = do_POST

    def log_message(self, format: str, *args: object) -> None:
        pass


def answer_500(port: int, seconds: float) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Broken) as broken:
        threading.Thread(target=broken.serve_forever, daemon=True).start()
        time.sleep(seconds)
        broken.shutdown()


def test_a_server_that_stalls_dies_answers_500_and_comes_back_has_everything_once(
    tmp_path: Path, server: Server
) -> None:
    """And the password of its address is written down nowhere."""
    uri = server.uri.replace("://", "://someone:s3cret@")
    sweep = Sweep(tmp_path, *LONG, "--tracking-uri", uri)
    sweep.until("trial-0000 starts")
    server.send(signal.SIGSTOP)
    sweep.until("trial-0002 starts")
    server.send(signal.SIGCONT)
    server.send(signal.SIGKILL)
    sweep.until("MLflow does not answer; the sweep goes on")
    answer_500(server.port, 6.0)
    sweep.until("final-at-bsl-s0 starts")
    server.start()
    assert sweep.process.wait(240) == 0, sweep.said()
    assert "MLflow answers again" in sweep.said()
    agreed = audit(tmp_path)
    assert agreed.returncode == 0, agreed.stdout + agreed.stderr
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes(), path


def test_a_sqlite_that_is_locked_for_half_a_minute_has_everything_once(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, *LONG)
    sweep.until("trial-0000 starts")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", timeout=30)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        locked = time.monotonic()
        sweep.until("trial-0003 starts")
        time.sleep(max(0.0, 30 - (time.monotonic() - locked)))
        lock.rollback()
    assert sweep.process.wait(240) == 0, sweep.said()
    agreed = audit(tmp_path)
    assert agreed.returncode == 0, agreed.stdout + agreed.stderr


@pytest.mark.timed
def test_a_server_that_stays_dead_holds_up_nothing_and_another_one_gets_everything(
    tmp_path: Path, server: Server
) -> None:
    sweep = Sweep(tmp_path, *LONG, "--tracking-uri", server.uri)
    sweep.until("trial-0000 starts")
    server.send(signal.SIGKILL)
    sweep.until("trial-0004 starts")
    asked = time.monotonic()
    sweep.process.send_signal(signal.SIGTERM)
    assert sweep.process.wait(20) == 130
    assert time.monotonic() - asked < 10
    assert "runs; the sweep's folder has it" in sweep.said()
    assert audit(tmp_path).returncode == 2
    other = ("--tracking-uri", f"sqlite:///{tmp_path}/other.db")
    lacking = audit(tmp_path, *other)
    assert (lacking.returncode, "trial-0000" in lacking.stdout) == (1, True)
    repaired = audit(tmp_path, "--repair", *other)
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert audit(tmp_path, *other).returncode == 0
