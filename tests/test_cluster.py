"""A sweep on a Ray cluster that others started: here two nodes of one processor each, on this machine."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from sweeping import SMALL, SMALLEST, mlflow_runs, run_search

from sweeps.journal.record import Record
from sweeps.settings.sweep import SETTINGS_FILE

RAY = Path(sys.executable).with_name("ray")
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address and token of a running cluster."""
    address, token = f"127.0.0.1:{free_port()}", secrets.token_hex(32)
    folder = tmp_path_factory.mktemp("c")
    env = os.environ | QUIET | {"RAY_AUTH_TOKEN": token}
    size = ("--num-cpus=1", "--num-gpus=0", "--object-store-memory=100000000", "--block", "--disable-usage-stats")
    head = ("--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false", f"--temp-dir={folder}")
    nodes = []
    try:
        for where in ((*head, "--node-ip-address=127.0.0.1"), (f"--address={address}",)):
            with (folder / f"node{len(nodes)}.log").open("w") as log:
                command = [str(RAY), "start", *where, *size]
                nodes.append(subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True))
            wait_until_said(Path(log.name), "--block")
        yield address, token
    finally:
        for node in nodes:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()


def wait_until_said(log: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


@pytest.mark.slow
def test_a_sweep_runs_on_a_cluster_and_leaves_it_as_it_was(
    cluster: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, token = cluster
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    done = run_search(tmp_path, "--name", "one", "--ray-address", address, *SMALLEST, "--trials", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 trial(s) at a time" in done.stdout
    record = Record.read(tmp_path / "runs" / "one")
    assert {known.outcome for known in record.jobs.values()} <= {"done", "pruned", "reused"}
    assert len(mlflow_runs(tmp_path, "one")) == 1 + len(record.jobs)
    assert not list((tmp_path / "runs" / "one" / "ray").iterdir())
    with socket.create_connection(address.split(":"), 5):
        pass


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--gpus-per-trial", "0.5"), "no node of the cluster has more than 0 GPU(s)"),
        (("--ray-address", "127.0.0.1:1"), "--ray-address 127.0.0.1:1: no cluster can be joined there"),
    ],
)
def test_what_the_cluster_cannot_do_is_told_before_anything_begins(
    cluster: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], says: str
) -> None:
    address, token = cluster
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    done = run_search(tmp_path, "--ray-address", address, *SMALL, *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_who_does_not_know_the_token_is_told_where_it_belongs(
    cluster: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    done = run_search(tmp_path, "--ray-address", cluster[0], *SMALL)
    assert done.returncode == 2, done.stderr
    assert "~/.ray/auth_token" in done.stderr
    assert cluster[1] not in done.stderr


def own_ray(folder: Path) -> dict[str, object]:
    """What a Ray of one's own has that is started here and now, and where its files lie."""
    from sweeps.journal.exchange import SharedFolder
    from sweeps.machines.machine import OwnMachine
    from sweeps.settings.flags import Settings

    machine = OwnMachine(Settings(concurrency=1, gpus_per_trial=0.0))
    machine.start(folder, None, SharedFolder())  # type: ignore[arg-type]
    import ray

    here = {"processors": ray.cluster_resources()["CPU"], "files": str(Path(ray.nodes()[0]["ObjectStoreSocketName"]))}
    machine.stop()
    return here


def test_a_ray_of_ones_own_starts_beside_a_strangers_whatever_is_set(
    cluster: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, token = cluster
    long = tmp_path / ("x" * 91)
    long.mkdir()
    for name, value in {
        "TMPDIR": str(long),
        "RAY_TMPDIR": "/proc/none",
        "RAY_ADDRESS": address,
        "RAY_AUTH_MODE": "disabled",
        "RAY_AUTH_TOKEN": token,
        "RAY_AUTH_TOKEN_PATH": "/none",
        "RAY_CLIENT_MODE": "1",
        "RAY_REDIS_ADDRESS": "127.0.0.1:9",
        "RAY_GCS_SERVER_PORT": address.rpartition(":")[2],
        "RAY_OVERRIDE_RESOURCES": '{"CPU": 7}',
        "RAY_RUNTIME_ENV_HOOK": "no.such.hook",
        "RAY_JOB_CONFIG_JSON_ENV_VAR": "{}",
    }.items():
        monkeypatch.setenv(name, value)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        here = apart.submit(own_ray, tmp_path).result()
    assert here["processors"] == 1
    assert str(here["files"]).startswith("/tmp/ltsd-")
    assert not Path(str(here["files"])).parents[2].exists()
    with socket.create_connection(address.split(":"), 5):
        pass


def looked_over(address: str, token: str, folder: Path) -> tuple[int, list[str]]:
    """How many nodes a cluster has, and what each lacks that answers when one more is asked that is gone."""
    os.environ["RAY_AUTH_TOKEN"] = token
    from sweeps.journal.exchange import SharedFolder
    from sweeps.machines.cluster import Cluster, alive_nodes, look_over
    from sweeps.settings.flags import Settings
    from sweeps.worker.node_setup import Shipment, versions

    machines = Cluster(Settings(ray_address=address))
    try:
        nodes = alive_nodes()
        gone = nodes[0] | {"NodeID": "0" * len(nodes[0]["NodeID"])}
        shipment = Shipment(versions(), str(folder), SharedFolder(), "images", "fingerprint", ())
        told = look_over([*nodes, gone], shipment)
        assert [node for node, _ in told] == nodes
    finally:
        machines.stop()
    return len(nodes), [lacks for _, lacks in told]


def test_a_node_that_is_gone_before_it_answers_is_left_out(cluster: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).touch()
    # A process keeps the first token that Ray reads in it, which may be that of another test.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        assert apart.submit(looked_over, *cluster, tmp_path).result() == (2, ["", ""])


def test_a_node_says_what_it_lacks(tmp_path: Path) -> None:
    from sweeps.journal.exchange import SharedFolder
    from sweeps.worker.node_setup import Shipment, lacks_of_this_node, versions

    wanted = Shipment(versions(), str(tmp_path), SharedFolder(), "images", "fingerprint", ())
    assert f"it does not see {tmp_path}" in lacks_of_this_node(wanted)
    (tmp_path / SETTINGS_FILE).touch()
    assert lacks_of_this_node(wanted) == ""
    newer = Shipment(versions() | {"torch": "99.0"}, str(tmp_path), SharedFolder(), "images", "fingerprint", ())
    assert f"it has torch {versions()['torch']}, the driver 99.0" in lacks_of_this_node(newer)
