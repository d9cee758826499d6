"""A sweep on a cluster whose nodes share a bucket and nothing else; then the node is lost, and the leader's disk."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from background import Sweep, audit
from kills import NAME, SHORT
from pyarrow.fs import S3FileSystem
from serving import LOGIN, s3_server, s3_uri
from sweeping import run_search

from sweeps.journal.record import Record

pytestmark = pytest.mark.slow
RAY = Path(sys.executable).with_name("ray")
SIZE = ("--num-gpus=0", "--object-store-memory=100000000", "--block", "--disable-usage-stats")
FLAGS = (*SHORT, "--trials", "2", "--epochs", "30", "--references", "at", "--concurrency", "2")
HEALTH = {"period_ms": 500, "timeout_ms": 1000, "failure_threshold": 4, "initial_delay_ms": 0}
"""How often Ray looks after its nodes: a lost one is noticed within seconds."""


class Cluster:
    """A leader without processors for jobs, and a node in whose files the leader's folder of sweeps is an empty one."""

    def __init__(self, folder: Path, shared: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._folder, self._runs, self._nodes = folder, shared, list[subprocess.Popen[bytes]]()
        port = self.address.rpartition(":")[2]
        own = ("--node-ip-address=127.0.0.1", "--include-dashboard=false", f"--temp-dir={folder}")
        self._start("leader", str(RAY), "start", "--head", f"--port={port}", "--num-cpus=0", *own, *SIZE)

    def boot_node(self) -> None:
        """Switch on a node that was never on before."""
        name = f"node{len(self._nodes)}"
        joined = f"{RAY} start --address={self.address} --num-cpus=2 {' '.join(SIZE)}"
        hidden = f"mount -t tmpfs tmpfs {self._runs} && XDG_CACHE_HOME={self._folder / name} exec {joined}"
        self._start(name, "unshare", "--mount", "sh", "-c", hidden)

    def _start(self, name: str, *command: str) -> None:
        with (self._folder / f"{name}.log").open("w") as log:
            self._nodes.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
        deadline = time.monotonic() + 60
        while "--block" not in Path(log.name).read_text():
            assert self._nodes[-1].poll() is None, Path(log.name).read_text()
            assert time.monotonic() < deadline, Path(log.name).read_text()
            time.sleep(0.1)

    def pull_the_plug(self) -> None:
        """The node that was started last ends at once, and its files are gone."""
        node = self._nodes.pop()
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def stop(self) -> None:
        while self._nodes:
            self.pull_the_plug()


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a folder in a bucket."""
    environment = LOGIN | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment |= {f"RAY_health_check_{name}": str(value) for name, value in HEALTH.items()}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with s3_server(tmp_path) as address:
        client = S3FileSystem(endpoint_override=address, scheme="http", allow_bucket_creation=True)
        client.create_dir("bucket")
        yield s3_uri(address, "bucket/ltsd")


def test_nodes_that_share_a_bucket_alone_and_a_lost_node_and_a_lost_leader_cost_no_trial(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, shared: str
) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to give a process files of its own")
    runs = tmp_path / "runs"
    runs.mkdir()
    cluster = Cluster(tmp_path_factory.mktemp("c"), runs)
    try:
        cluster.boot_node()
        sweep = Sweep(tmp_path, *FLAGS, "--ray-address", cluster.address, "--shared", shared)
        sweep.until("trial-0000 starts")
        time.sleep(2.0)
        cluster.pull_the_plug()
        cluster.boot_node()
        sweep.until("(goes on after epoch")
        sweep.until("trial-0000 done")
        sweep.process.send_signal(signal.SIGKILL)
        sweep.process.wait()
        before = Record.read(runs / NAME)
        shutil.rmtree(runs / NAME)
        (tmp_path / "mlflow.db").unlink()
        done = run_search(tmp_path, "--name", NAME, "--resume", "--shared", shared)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        cluster.stop()
    after = Record.read(runs / NAME)
    over = {key: known for key, known in before.jobs.items() if known.outcome is not None}
    assert "trial-0000" in over
    assert {key: (known.outcome, known.epochs) for key, known in over.items()} == {
        key: (after.jobs[key].outcome, after.jobs[key].epochs) for key in over
    }
    assert {known.outcome for known in after.jobs.values()} <= {"done", "pruned", "reused"}
    agreed = audit(tmp_path)
    assert agreed.returncode == 0, agreed.stdout + agreed.stderr
