"""A night on a cluster: `ray up` on hosts of their own, a sweep over them, and all that happens to hosts."""

import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from checkout import CODE
from hosts import PROJECT, VENV, Host, Lan, wait_until, what_is_missing

from sweeps.journal.record import JobRecord, Record

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timed,
    pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing() or "all is there"),
]

RAY = str(VENV / "bin" / "ray")
HOSTS = 4
LINK_DOWN_S = 50.0
SWEEP = (
    *("--ray-address", "auto", "--storage", "~/storage/runs", "--tracking-uri", "http://127.0.0.1:5000"),
    *("--search", "distill", "--teacher.epochs", "5", "--confirm", "1", "--final-seeds", "1"),
    *("--final-attack", "none", "--references", "''"),
)


class RayCluster:
    """The cluster of a file like cluster-onprem.yaml, as its user sees it: from a machine beside it."""

    def __init__(self, lan: Lan) -> None:
        self._lan, self.file = lan, lan.folder / "cluster.yaml"
        self.head, *self.workers = lan.hosts
        self._logs: dict[int, Path] = {}

    def write(self) -> None:
        """Edit the lines that are the user's, and have each host carry one trial."""
        text = (PROJECT / "cluster-onprem.yaml").read_text().replace("ray start", "ray start --num-cpus=1")
        config = yaml.safe_load(text)
        config["provider"] |= {"head_ip": self.head.address, "worker_ips": [host.address for host in self.workers]}
        config["auth"] = {"ssh_user": "root", "ssh_private_key": str(self._lan.key)}
        self.file.write_text(yaml.safe_dump(config))

    def ray(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a `ray` command on the user's machine."""
        log = self._lan.folder / f"ray-{len(self._logs):02d}-{command[0]}.log"
        process = self._lan.start((RAY, *command), log)
        self._logs[process.pid] = log
        return process

    def ends_well(self, process: subprocess.Popen[bytes]) -> str:
        """What a `ray` command printed that came to its good end."""
        code, said = process.wait(420), self._logs[process.pid].read_text()
        assert code == 0, said[-3000:]
        return said

    def run(self, *command: str) -> str:
        """Run a `ray` command; returns what it printed."""
        return self.ends_well(self.ray(*command))

    def up(self) -> None:
        self.run("up", "-y", str(self.file))

    def search(self, name: str, *flags: str) -> subprocess.Popen[bytes]:
        """Start the main command on the head, in a shell that its user has there."""
        command = ("python", "sweeps/search.py", "--name", name, *SWEEP, *flags)
        return self.ray("exec", str(self.file), "cd ~/ltsd && " + " ".join(command))

    def audit(self, name: str) -> str:
        """What the audit of a sweep says; it fails where records differ."""
        command = f"cd ~/ltsd && python sweeps/audit.py {name} --storage ~/storage/runs"
        return self.run("exec", str(self.file), command)

    def record(self, name: str) -> Record:
        return Record.read(self._lan.folder / "storage" / "runs" / name)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Three hosts, brought up; the fourth is on the list, but switched off."""
    with Lan(tmp_path_factory.mktemp("lan"), HOSTS) as lan:
        (lan.folder / ".ray").mkdir()
        (lan.folder / ".ray" / "auth_token").touch(mode=0o600)
        (lan.folder / ".ray" / "auth_token").write_text(secrets.token_hex(32))
        for host in lan.hosts[:3]:
            host.boot()
        cluster = RayCluster(lan)
        cluster.write()
        cluster.up()
        yield cluster


def running_on(record: Record, host: Host) -> list[str]:
    """The jobs that a host works on."""
    return [key for key, known in record.jobs.items() if known.outcome is None and known.hosts[-1:] == [host.address]]


def over(record: Record) -> dict[str, JobRecord]:
    """The jobs that came to their end."""
    return {key: known for key, known in record.jobs.items() if known.outcome is not None}


def starts(record: Record, host: Host) -> int:
    """How many times a host took up a job."""
    return sum(known.hosts.count(host.address) for known in record.jobs.values())


def test_nothing_that_lies_beside_the_code_is_sent(cluster: RayCluster) -> None:
    """The head has it all when `ray up` is over; what brings the workers up goes on after that."""
    for host in (cluster.head, *cluster.workers[:2]):
        wait_until(f"{host.address} has the code", lambda host=host: set(CODE) <= host.sent(), 120)
        assert host.sent() == set(CODE)


def test_lost_workers_a_cut_link_a_late_host_and_a_lost_head_cost_no_trial(cluster: RayCluster) -> None:
    """One sweep meets it all: what is over stays as it was, the rest is tried again, and the records agree."""
    powerless, cut, newcomer = cluster.workers
    # Trials that take longer than a worker's start: shorter ones go to workers that are there already.
    # And more of them than the others can finish before the last worker is back.
    sweep = cluster.search("night", "--trials", "64", "--epochs", "60", "--trial-steps", "10")
    for host in (powerless, cut):
        wait_until(f"{host.address} works", lambda host=host: bool(running_on(cluster.record("night"), host)), 120)
    powerless.pull_the_plug()
    cut.link("down")
    since = time.monotonic()
    record = cluster.record("night")
    lost = running_on(record, powerless) + running_on(record, cut)
    before = {host: starts(record, host) for host in cluster.workers}
    for host in (powerless, newcomer):
        host.boot()
    time.sleep(max(0, since + LINK_DOWN_S - time.monotonic()))
    cut.link("up")
    for host in cluster.workers:
        wait_until(
            f"{host.address} works after the losses",
            lambda host=host: starts(cluster.record("night"), host) > before[host],
            240,
        )

    before_the_head = over(cluster.record("night"))
    cluster.head.pull_the_plug()
    assert sweep.wait(60) != 0
    cluster.head.boot()
    cluster.up()
    # What was proposed is finished, and nothing more is proposed: the rest of the night would teach nothing new.
    cluster.ends_well(cluster.search("night", "--resume", "--trials", "1"))
    cluster.audit("night")
    record = cluster.record("night")
    assert {known.outcome for known in record.jobs.values()} <= {"done", "pruned", "reused"}
    assert before_the_head
    assert all(record.jobs[key] == known for key, known in before_the_head.items())
    # A teacher that the host without a link ended by itself is found in the store when it is tried again.
    assert all(len(record.jobs[key].hosts) >= 2 for key in lost if record.jobs[key].outcome != "reused")


def test_ray_down_leaves_nothing(cluster: RayCluster) -> None:
    cluster.run("down", "-y", str(cluster.file))
    # Ray's launcher stops the head; the others see that it is gone, after a minute.
    for host in (cluster.head, *cluster.workers):
        wait_until(f"nothing runs on {host.address}", lambda host=host: not host.processes(), 150)
