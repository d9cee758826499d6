"""How many more trials do three hosts run than one? Hosts of namespaces on this machine, brought up by `ray up`.

    python benchmarks/more_hosts.py       # results/more_hosts.md; root on Linux, see tests/cluster

Each host carries one trial at a time. Trials wait for ten seconds and report made-up numbers, so that the processors of
the one machine that all hosts share do not decide: what is measured is what placing, reporting and recording cost.
"""

import argparse
import secrets
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import overhead
from machine import RESULTS, hardware, versions

from ltsd.files import publishing
from sweeps.journal.record import Record

HOSTS, TRIALS_A_HOST, WAIT_S = 3, 10, 10.0
STORAGE = "storage/runs"
NAMES = {HOSTS: "three", 1: "one"}


def waiting_job(params: Mapping[str, Any], **rest: Any) -> None:
    """In place of `run_job`: a wait, and the reports of a job."""
    overhead.trivial_job(params, **rest, wait_s=WAIT_S)


def drive(name: str, trials: int) -> None:
    """The driver, on the leader: a sweep whose trials wait. It finds no finalist, since nothing is trained."""
    from ray import cloudpickle

    from sweeps import driver
    from sweeps.dispatch import tuner
    from sweeps.settings.sweep import Sweep

    cloudpickle.register_pickle_by_value(overhead)
    tuner.run_job = waiting_job
    where = {"storage": str(Path.home() / STORAGE), "tracking_uri": "http://127.0.0.1:5000", "ray_address": "auto"}
    ends = {"final_attack": "none", "references": "", "final_seeds": 1}
    fixed = {"method": "at-bsl", "epochs": overhead.EPOCHS, "evaluate.every": overhead.EVERY}
    driver.run_sweep(Sweep.new({"name": name, "trials": trials, **where, **ends}, fixed))


def trials_an_hour(folder: Path, name: str) -> float:
    """From the start of a sweep's first trial to the end of its last."""
    known = list(Record.read(folder / STORAGE / name).of_kind("trial"))
    assert {one.outcome for one in known} <= {"done", "pruned"}
    seconds = (max(one.ended for one in known) - min(one.started for one in known)) / 1000
    return 3600 * len(known) / seconds


def measure(folder: Path) -> dict[int, float]:
    """Trials an hour by the number of hosts."""
    sys.path.append(str(Path(__file__).parent.parent / "tests" / "cluster"))
    from hosts import Lan
    from test_ray_up import RayCluster

    rates: dict[int, float] = {}
    with Lan(folder, HOSTS) as lan:
        (lan.folder / ".ray").mkdir()
        (lan.folder / ".ray" / "auth_token").touch(mode=0o600)
        (lan.folder / ".ray" / "auth_token").write_text(secrets.token_hex(32))
        for host in lan.hosts:
            host.boot()
        cluster = RayCluster(lan)
        cluster.write()
        cluster.up()
        for hosts, name in NAMES.items():
            for host in lan.hosts[hosts:]:
                host.pull_the_plug()
            arguments = f"--drive {name} {hosts * TRIALS_A_HOST}"
            cluster.run("exec", str(cluster.file), f"cd ~/ltsd && python benchmarks/more_hosts.py {arguments}")
            rates[hosts] = trials_an_hour(folder, name)
            print(f"{hosts} host(s): {rates[hosts]:.0f} trials an hour", flush=True)
    return rates


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "more_hosts.md", help="where the table goes")
    parser.add_argument("--drive", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.drive:
        drive(flags.drive[0], int(flags.drive[1]))
        return
    with tempfile.TemporaryDirectory(prefix="ltsd-bench-", ignore_cleanup_errors=True) as folder:
        rates = measure(Path(folder))
    ideal = 3600 / WAIT_S
    rows = [
        f"| {hosts} | {rate:.0f} | {rate / (hosts * ideal):.0%} | {rate / rates[1]:.2f} |"
        for hosts, rate in sorted(rates.items())
    ]
    with publishing(flags.out) as temporary:
        temporary.write_text(
            f"# Trials that wait {WAIT_S:g} s, on hosts that carry one at a time\n\n"
            f"Made by `python benchmarks/more_hosts.py`; {versions('ray', 'optuna', 'mlflow')}; all hosts on "
            f"{hardware()}. "
            f"{TRIALS_A_HOST} trials a host, from the start of the first to the end of the last; MLflow on the leader, "
            "by HTTP.\n\n| hosts | trials an hour | of what waiting alone allows | to one host |\n|---|---|---|---|\n"
            + "\n".join(rows)
            + "\n"
        )
    print(flags.out.read_text())


if __name__ == "__main__":
    main()
