"""What does a sweep's driver cost as its trials grow? Its own time and memory, with trials that do nothing.

    python benchmarks/overhead.py                     # 10, 100, 1,000 and 5,000 trials: results/overhead.md
    python benchmarks/overhead.py --trials 10,100     # fewer

The sweep is a real one: Ray, the Optuna study in its file, the journal, MLflow in sqlite. Only the training is
replaced: a trial reports four epochs of made-up numbers, two of them validated, as fast as it can. The driver is
watched from outside, four times a second: processor time of all its threads, and resident memory. Ray's own processes
do not count. Linux only.
"""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import RESULTS, hardware, versions

from ltsd.checkpoint import save_checkpoint
from ltsd.files import publishing
from sweeps.settings.sweep import JOURNAL_FILE

ROBUST = "val/robust_acc"

EPOCHS, EVERY = 4, 2
EVERY_S = 0.25
NAME = "overhead"


@dataclass(frozen=True)
class Sample:
    """How many trials were over at a moment, and what the driver had used: seconds, seconds, bytes."""

    trials: int
    at: float
    cpu: float
    memory: int


def trivial_job(
    params: Mapping[str, Any], gpu_fraction: float, shipment: None, exchange: object, wait_s: float = 0.0
) -> None:
    """In place of `run_job`: the same reports, without the work, the first epoch after a wait."""
    from ray import tune

    from sweeps.journal.jobs import BEGINS, Job, Report

    job = Job.of(params)
    tune.report(Report(0, BEGINS).message())
    time.sleep(wait_s)
    if job.kind == "teacher":
        save_checkpoint(Path(job.teacher), {"history": []})
    for epoch in range(1, job.config.epochs + 1):
        luck = hashlib.sha256(f"{job.key}/{epoch}".encode()).digest()[0] / 255
        values = {"train/loss": 1 / epoch, "train/robust_acc": luck, "train/lr": job.config.optim.lr}
        per_class: dict[str, list[float]] = {}
        if epoch % EVERY == 0:
            values |= {ROBUST: luck, "val/clean_acc": luck, "val/fgsm_acc": luck, "val/tail_robust_acc": luck}
            per_class = {"clean": [luck] * 10, "robust": [luck] * 10}
        tune.report(Report(epoch, values=values, per_class=per_class).message())


def drive(trials: int, epochs: int) -> int:
    """The driver: a sweep in the current folder whose jobs are trivial."""
    from sweeps import driver
    from sweeps.dispatch import tuner
    from sweeps.settings.sweep import Sweep

    tuner.run_job = trivial_job
    settings = {"name": NAME, "trials": trials, "final_attack": "none", "references": "", "final_seeds": 1}
    fixed = {"epochs": epochs, "teacher.epochs": EPOCHS, "evaluate.every": EVERY}
    return driver.run_sweep(Sweep.new(settings, fixed))


def watch(trials: int, epochs: int = EPOCHS) -> list[Sample]:
    """Run a driver to the end of its trials, and what it used on the way."""
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="ltsd-bench-") as folder:
        command = [sys.executable, str(Path(__file__).absolute()), "--drive", str(trials), str(epochs)]
        journal = Path(folder) / "runs" / NAME / JOURNAL_FILE
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
            done, read = 0, 0
            while done < trials and process.poll() is None:
                time.sleep(EVERY_S)
                if journal.exists():
                    with journal.open("rb") as file:
                        file.seek(read)
                        news = file.read()
                    read += len(news)
                    done += news.count(b'"what": "ended", "job": "trial-')
                samples.append(Sample(done, time.time(), *used_by(process.pid)))
            process.send_signal(signal.SIGTERM)
    return samples


def used_by(process: int) -> tuple[float, int]:
    """Processor seconds of a process and its resident bytes, as Linux tells them (proc(5))."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")


def between(samples: list[Sample], low: float, high: float) -> tuple[float, float, float]:
    """Wall ms, processor ms and kB a trial, from when a share `low` of the trials was over to when `high` was."""
    total = samples[-1].trials
    first = next(sample for sample in samples if sample.trials >= max(1, low * total))
    last = next(sample for sample in samples if sample.trials >= high * total)
    trials = max(1, last.trials - first.trials)
    return (
        1000 * (last.at - first.at) / trials,
        1000 * (last.cpu - first.cpu) / trials,
        (last.memory - first.memory) / 1000 / trials,
    )


def _shown(value: float) -> str:
    return f"{value:.0f}" if value else "–"  # so few trials that no two looks parted them


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default="10,100,1000,5000", help="trials of the sweeps, comma-separated")
    parser.add_argument("--out", type=Path, default=RESULTS / "overhead.md", help="where the table goes")
    parser.add_argument("--drive", type=int, nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.drive:
        sys.exit(drive(*flags.drive))
    rows = [
        "| trials | ms a trial | driver's processor ms a trial | first tenth | last tenth | kB a trial | last half |",
        "|---|---|---|---|---|---|---|",
    ]
    for trials in map(int, flags.trials.split(",")):
        samples = watch(trials)
        (wall, cpu, memory), early, late = (between(samples, *part) for part in ((0, 1), (0, 0.1), (0.9, 1)))
        half = between(samples, 0.5, 1)[2]
        tenths = f"{_shown(early[1])} | {_shown(late[1])}"
        rows.append(f"| {trials} | {wall:.0f} | {cpu:.0f} | {tenths} | {memory:.0f} | {half:.0f} |")
        print(rows[-1], flush=True)
    with publishing(flags.out) as temporary:
        temporary.write_text(
            "# The driver of a sweep, as its trials grow\n\n"
            f"Made by `python benchmarks/overhead.py --trials {flags.trials}`; "
            f"{versions('torch', 'ray', 'optuna', 'mlflow')}; {hardware()}. "
            "From the end of the first trial to the end of the last; first and last tenth are the "
            "driver's processor time for those trials alone.\n\n" + "\n".join(rows) + "\n"
        )
    print(flags.out.read_text())


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
