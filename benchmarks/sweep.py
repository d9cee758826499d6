"""How long until a sweep has a good configuration? This project beside the script one would write without it.

    python benchmarks/sweep.py                # writes benchmarks/results/sweep.md, about twenty minutes on two cores

Both sweep LTSD on the digits with the same space, budget of trials, processors and sampler seed, in turns, each in a
process and a folder of its own. The clock starts with the process. The score is validation PGD-20 of a fully trained
trial. What both have to reach is the median, over the repetitions, of the best that the obvious script
(benchmarks/obvious_sweep.py) finds in its whole budget; where a sweep does not get there, its whole time is counted,
which flatters it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from machine import RESULTS, hardware, versions
from rungs import FIXED

from ltsd.config import Config
from ltsd.files import publishing
from sweeps.journal.record import Record
from sweeps.settings.sweep import JOURNAL_FILE

ROBUST = "val/robust_acc"

HERE = Path(__file__).parent
EPOCHS = Config.preset("digits").epochs
BASE = Config.preset("digits").flatten()


@dataclass(frozen=True)
class Search:
    """What a sweep found: (seconds since its process started, score) of every fully trained trial, in order of time;
    `seconds` until its last trial ended.
    """

    found: list[tuple[float, float]]
    seconds: float

    @property
    def best(self) -> float:
        """The best score."""
        return max(score for _, score in self.found)

    def seconds_to(self, score: float) -> tuple[float, bool]:
        """When a trial first had that score, else the whole time; and whether one had it."""
        times = [seconds for seconds, reached in self.found if reached >= score]
        return (times[0], True) if times else (self.seconds, False)


def search_here(trials: int, seed: int, folder: Path) -> Search:
    """A sweep of this project, watched through its journal and stopped when its trials are over."""
    flags = ["--name", "one", "--trials", str(trials), "--seed", str(seed), "--storage", str(folder / "runs")]
    flags += ["--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}", "--references", "", "--final-attack", "none"]
    flags += ["--objectives", "robust", *(f"--{name}={BASE[name]}" for name in FIXED)]
    started = time.time()
    with subprocess.Popen(
        [sys.executable, str(HERE.parent / "sweeps" / "search.py"), *flags], cwd=folder, stdout=subprocess.DEVNULL
    ) as process:
        journal = folder / "runs" / "one"
        while process.poll() is None and _trials_over(journal) < trials:
            time.sleep(1)
        process.terminate()
    known = list(Record.read(journal).of_kind("trial"))
    found = [
        (one.reported[EPOCHS] / 1000 - started, one.epochs[EPOCHS].values[ROBUST])
        for one in known
        if EPOCHS in one.epochs
    ]
    return Search(sorted(found), max(one.ended for one in known) / 1000 - started)


def _trials_over(folder: Path) -> int:
    journal = folder / JOURNAL_FILE
    return journal.read_bytes().count(b'"what": "ended", "job": "trial-') if journal.exists() else 0


def search_obviously(trials: int, seed: int, folder: Path) -> Search:
    """The obvious script."""
    started = time.time()
    command = [sys.executable, str(HERE / "obvious_sweep.py"), "--trials", str(trials), "--seed", str(seed)]
    quiet = os.environ | {"RAY_AIR_NEW_OUTPUT": "0", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=quiet)
    reports = json.loads((folder / "reports.json").read_text())
    found = [(at - started, score) for at, epoch, score in reports if epoch == EPOCHS]
    return Search(sorted(found), max(at for at, _, _ in reports) - started)


def table(here: list[Search], obvious: list[Search]) -> list[str]:
    """A row a repetition, and the medians."""
    target = statistics.median(search.best for search in obvious)
    rows = [
        f"Score to reach: {100 * target:.1f}%.\n",
        "| repetition | here: s to it | obvious: s to it | ratio | here: s for all trials | obvious | ratio "
        "| here: best | obvious |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    ratios, whole = [], []
    for number, (mine, other) in enumerate(zip(here, obvious, strict=True)):
        (sooner, reached), (later, was_reached) = mine.seconds_to(target), other.seconds_to(target)
        ratios.append(later / sooner)
        whole.append(other.seconds / mine.seconds)
        rows.append(
            f"| {number} | {sooner:.0f}{'' if reached else ' (never)'} "
            f"| {later:.0f}{'' if was_reached else ' (never)'} | {ratios[-1]:.1f} "
            f"| {mine.seconds:.0f} | {other.seconds:.0f} | {whole[-1]:.1f} "
            f"| {100 * mine.best:.1f} | {100 * other.best:.1f} |"
        )
    rows.append(f"| median | | | **{statistics.median(ratios):.1f}** | | | **{statistics.median(whole):.1f}** | | |")
    return rows


def main() -> None:
    """Let both sweep in turns, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=16, help="trials of a sweep (default: 16)")
    parser.add_argument("--repetitions", type=int, default=5, help="sweeps of each, one a seed (default: 5)")
    parser.add_argument("--out", type=Path, default=RESULTS / "sweep.md", help="where the table goes")
    flags = parser.parse_args()
    here, obvious = [], []
    for seed in range(flags.repetitions):
        for search, into in ((search_here, here), (search_obviously, obvious)):
            with tempfile.TemporaryDirectory(prefix="ltsd-bench-") as folder:
                into.append(search(flags.trials, seed, Path(folder)))
            print(f"{search.__name__}, seed {seed}: {into[-1].seconds:.0f} s, best {into[-1].best:.3f}", flush=True)
    with publishing(flags.out) as temporary:
        temporary.write_text(
            f"# A sweep beside the obvious script: {flags.trials} trials of LTSD on the digits\n\n"
            f"Made by `python benchmarks/sweep.py --trials {flags.trials} --repetitions {flags.repetitions}`; "
            f"{versions('torch', 'ray', 'optuna', 'mlflow')}; {hardware()}. Seconds from the start of the process; "
            "scores are validation PGD-20 in percent; the ratio is how much longer the obvious script takes.\n"
            + "\n".join(table(here, obvious))
            + "\n"
        )
    print(flags.out.read_text())


if __name__ == "__main__":
    main()
