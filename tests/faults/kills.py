"""Sweeps under fire: processes of real sweeps are killed at random, and what is left is counted.

python tests/faults/kills.py --kills 300 --seed 0 --table benchmarks/results/kills.md
"""

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from mlflow import MlflowClient

from sweeps.journal.record import Record
from sweeps.settings.sweep import JOURNAL_FILE

SWEEPS = Path(__file__).parent.parent.parent / "sweeps"
NAME = "fire"
SHORT = (
    *("--search", "distill,balance"),
    *("--epochs", "12", "--teacher.epochs", "4", "--evaluate.every", "2", "--model.width", "8", "--final-seeds", "1"),
    *("--confirm", "1", "--final-attack", "none", "--reference-attack", "none"),
)
VICTIMS = {
    "worker": "ray::ImplicitFunc",
    "driver": "sweeps/search.py",
    "raylet": "/raylet/raylet",
    "gcs": "/gcs/gcs_server",
}
KINDS = ("worker",) * 36 + ("driver",) * 4 + ("raylet", "gcs")
TIMEOUT_S = 600.0


@dataclass
class Outcome:
    """What a sweep under fire went through, and what it was left with."""

    kills: Counter[str] = field(default_factory=Counter)
    resumes: int = 0
    seconds: float = 0.0
    lost: int = 0
    doubled: int = 0
    running: int = 0
    unfinished: int = 0
    redone: int = 0
    disagreements: int = 0

    @property
    def is_whole(self) -> bool:
        """Nothing lost, nothing doubled, nothing left running, everything finished, everything agreed."""
        return not (self.lost or self.doubled or self.running or self.unfinished or self.disagreements)


def descendants(root: int) -> dict[int, str]:
    """Command lines of all processes below one."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
    found, below = dict[int, str](), {root}
    while below:
        below = {pid for pid, parent in parents.items() if parent in below}
        for pid in below:
            try:
                found[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
    return found


def kill(root: int, what: str, draw: random.Random) -> bool:
    """SIGKILL a process of a kind below one; returns whether there was one."""
    victims = [pid for pid, command in descendants(root).items() if VICTIMS[what] in command]
    if not victims:
        return False
    try:
        os.kill(draw.choice(sorted(victims)), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def acknowledged(folder: Path) -> bytes:
    """The whole lines of the journal as it is now."""
    path = folder / "runs" / NAME / JOURNAL_FILE
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def schedule(draw: random.Random, kinds: Sequence[str]) -> Iterator[tuple[str, float]]:
    """What is killed next, and how many seconds after the last kill.

    What begins the sweep again takes time to get to work, and is mostly, but not always, given it.
    """
    pause = 8.0
    while True:
        what = draw.choice(kinds)
        yield what, pause + draw.uniform(0.2, 2.0)
        pause = 8.0 if what != "worker" and draw.random() < 0.8 else 0.0


def under_fire(folder: Path, flags: Sequence[str], plan: Iterator[tuple[str, float]], draw: random.Random) -> Outcome:
    """Run a sweep to its end while its processes are killed, resume it where it must be, and count what is left."""
    outcome, started, seen = Outcome(), time.monotonic(), b""
    process = _start(folder, ["--name", NAME, *flags])
    for what, pause in plan:
        code = _wait(process, pause)
        if code is None:
            seen = max(seen, acknowledged(folder), key=len)
            while process.poll() is None and not kill(process.pid, what, draw):
                time.sleep(0.1)
            outcome.kills[what] += process.poll() is None
            continue
        if code == 0:
            break
        outcome.resumes += 1
        is_there = (folder / "runs" / NAME / "sweep.json").exists()
        process = _start(folder, ["--name", NAME, *(["--resume"] if is_there else flags)])
    else:
        _end(folder, process)
    outcome.seconds = time.monotonic() - started
    count(folder, seen, outcome)
    return outcome


def _end(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Let the sweep come to its end in peace."""
    code = _wait(process, TIMEOUT_S)
    while code != 0:
        assert code is not None, "the sweep hangs"
        process = _start(folder, ["--name", NAME, "--resume"])
        code = _wait(process, TIMEOUT_S)


def _start(folder: Path, flags: Sequence[str]) -> subprocess.Popen[bytes]:
    with (folder / "said.log").open("ab") as log:
        return subprocess.Popen([sys.executable, str(SWEEPS / "search.py"), *flags], cwd=folder, stdout=log, stderr=log)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def count(folder: Path, seen: bytes, outcome: Outcome) -> None:
    """Hold journal, study and MLflow against what was acknowledged while the sweep ran."""
    whole = acknowledged(folder)
    lines = whole.splitlines()
    outcome.lost = sum(line not in set(lines) for line in seen.splitlines())
    record = Record.read(folder / "runs" / NAME)
    outcome.redone = sum(known.redone for known in record.jobs.values())
    outcome.unfinished = sum(known.outcome is None for known in record.jobs.values())
    reported = Counter(_epoch_of(line) for line in lines if b'"what": "reported"' in line)
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{folder}/runs/{NAME}/study.db")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=1000)
    jobs = Counter(run.data.tags["ltsd.job"] for run in runs)
    outcome.doubled = sum(n - 1 for n in [*reported.values(), *jobs.values()])
    outcome.running = sum(not trial.state.is_finished() for trial in study.trials)
    outcome.running += sum(run.info.status == "RUNNING" for run in runs)
    audit = subprocess.run([sys.executable, str(SWEEPS / "audit.py"), NAME], cwd=folder, capture_output=True, text=True)
    outcome.disagreements = audit.returncode
    if audit.returncode:
        print(audit.stdout, audit.stderr)


def _epoch_of(line: bytes) -> tuple[str, int, str]:
    event = json.loads(line.partition(b" ")[2])
    return event["job"], event["report"]["epoch"], event["report"]["phase"]


def main() -> None:
    """Sweep after sweep under fire until so many processes were killed; prints and keeps the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-sweep", type=int, default=50)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    outcomes: list[Outcome] = []
    while (total := sum((one.kills for one in outcomes), Counter[str]()).total()) < arguments.kills:
        print(f"{total} kills", flush=True)
        with tempfile.TemporaryDirectory(prefix="ltsd-fire-") as folder:
            flags = (*SHORT, "--trials", str(arguments.trials), "--seed", str(1000 * len(outcomes)))
            fire = itertools.islice(schedule(draw, KINDS), min(arguments.per_sweep, arguments.kills - total))
            outcomes.append(under_fire(Path(folder), flags, fire, draw))
            print(outcomes[-1], flush=True)
        if arguments.table:
            arguments.table.write_text(table(outcomes, arguments.seed))
    print(table(outcomes, arguments.seed))


def table(outcomes: Sequence[Outcome], seed: int) -> str:
    """The outcomes in Markdown, a line a sweep and their sum."""
    kinds = list(VICTIMS)
    rows = [
        [
            str(number),
            *(str(one.kills[kind]) for kind in kinds),
            *map(str, (one.resumes, one.lost, one.doubled, one.running, one.unfinished, one.redone)),
            "yes" if not one.disagreements else "no",
            f"{one.seconds:.0f}",
        ]
        for number, one in enumerate(outcomes, 1)
    ]
    kills = sum((one.kills for one in outcomes), Counter[str]())
    header = [
        "sweep",
        *kinds,
        "resumes",
        "lost",
        "doubled",
        "left running",
        "unfinished",
        "redone",
        "audit agrees",
        "s",
    ]
    lines = [header, ["---"] * len(header), *rows]
    whole = sum(one.is_whole for one in outcomes)
    return (
        f"# Sweeps under fire\n\n`python tests/faults/kills.py --kills {kills.total()} --seed {seed}`: "
        f"{kills.total()} processes killed with SIGKILL in {len(outcomes)} sweeps; {whole} of {len(outcomes)} lost "
        "nothing, doubled nothing, left nothing running and were finished. `redone` counts epochs that were on record "
        "when a worker began before them.\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
    )


if __name__ == "__main__":
    main()
