"""What does each store of a sweep carry, and which is the first to give in on 100 nodes with 8 GPUs each?

    python benchmarks/scale.py --study-uri URI --tracking-uri URI --server-uri URI

The three are empty PostgreSQL databases. Measured: what `stores.py` measures, and the driver's processor time, all of
its stores included, over trials of two lengths that do nothing, which gives that of a trial and that of a report. What
the cluster wants is reckoned from assumptions, not measured. Writes results/scale.md.
"""

import argparse
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from machine import RESULTS, hardware, versions
from outage import start_server
from overhead import between, watch
from stores import PICTURE_BYTES, TRAINED, VALIDATED, of_journal, of_mlflow, of_study

from ltsd.files import publishing
from sweeps.study.database import StudyDatabase, StudyFile

SHORT, LONG, TRIALS = 4, 40, 60
Rates = Mapping[str, float]
LIFTS = {
    "study": "several sweeps side by side, each with a study of its own",
    "driver": "several sweeps side by side, each with its driver, journal and study, on hosts of their own",
    "MLflow": "no server between, and several sweeps side by side; what lags behind holds up no trial",
    "journal": "a --storage that syncs faster",
}
INTRODUCTION = """# A sweep on 100 nodes with 8 GPUs each, on paper

Made by `python benchmarks/scale.py --study-uri URI --tracking-uri URI --server-uri URI`;
{versions}; {hardware}, PostgreSQL on the same.

**Measured here**: operations a second of each store by itself, one after another, as the driver does them. A report to
MLflow is a batch of {points} points, an end brings {kilobytes} kB of pictures. The driver's row is its processor time,
stores included, over trials that do nothing.

**Assumed, not measured**: {cluster.trials} trials a GPU, {cluster.running:,} at a time; ResNet-18 on CIFAR-10-LT
({cluster.size:,} images), {cluster.epochs} epochs, validated every {cluster.every}, none stopped early; a GPU trains
{cluster.images:,.0f} images a second for its {cluster.trials} trials together. So an epoch takes
{cluster.epoch_s:.1f} s, a trial {minutes:.1f} minutes, and {hour:,.0f} end in an hour.

**Extrapolated from both**: the load, seconds of work that a second brings (above 1 it cannot keep up), and the trials
at a time at which it is 1.

| store | carries a second | bytes a second | wanted a second | load | trials at a time |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Cluster:
    """What is assumed of the cluster and its trials; `images` trains a GPU with so many a second."""

    nodes: int
    gpus: int
    trials: int
    images: float
    size: int
    epochs: int
    every: int

    @property
    def running(self) -> int:
        """Trials at a time."""
        return self.nodes * self.gpus * self.trials

    @property
    def epoch_s(self) -> float:
        """Seconds of an epoch; trials share their GPU evenly."""
        return self.size * self.trials / self.images

    def wanted(self) -> dict[str, dict[str, float]]:
        """Operations a second of each kind of store, while all trials run to their end."""
        reports = self.running / self.epoch_s
        ends = reports / self.epochs
        return {
            "journal": {"reports": reports + 3 * ends},
            "study": {"asks": ends, "reports": reports / self.every, "ends": ends},
            "MLflow": {"begins": ends, "reports": reports, "ends": ends},
            "driver": {"reports": reports, "trials": ends},
        }


def of_driver() -> dict[str, float]:
    """Reports and trials a second that a processor of the driver carries, from trials of two lengths."""
    short, long = (between(watch(TRIALS, epochs), 0, 1)[1] for epochs in (SHORT, LONG))
    each = (long - short) / (LONG - SHORT)
    return {"reports": 1000 / each, "trials": 1000 / max(short - SHORT * each, 0.1)}


def measured(study: str, records: str, served: str, running: int) -> dict[str, Rates]:
    """Operations a second, by store."""
    found: dict[str, Rates] = {}
    with tempfile.TemporaryDirectory(prefix="ltsd-bench-", dir=".") as name, contextlib.chdir(name):
        home = Path.cwd()

        def keep(title: str, measure: Callable[[Path], Rates]) -> None:
            folder = home / f"{len(found)}-{time.time_ns()}"
            folder.mkdir()
            found[title] = measure(folder)
            print(title, found[title], flush=True)

        keep("driver", lambda folder: of_driver())
        keep("journal", of_journal)
        for n in (16, running):
            place = StudyDatabase(study, f"scale-{n}-{time.time_ns()}")
            keep(f"study in a file, {n:,} trials run", lambda folder, n=n: of_study(StudyFile(folder), n))
            keep(f"study in PostgreSQL, {n:,} trials run", lambda folder, n=n, at=place: of_study(at, n))
        keep("MLflow in sqlite", lambda folder: of_mlflow(f"sqlite:///{folder}/mlflow.db", folder))
        keep("MLflow in PostgreSQL", lambda folder: of_mlflow(records, folder))
        for title, behind in (("sqlite", "sqlite:///server.db"), ("PostgreSQL", served)):
            server, uri = start_server(home, behind)
            keep(f"MLflow, a server on {title}", lambda folder, to=uri: of_mlflow(to, folder))
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    return found


def kind_of(title: str) -> str:
    """What a row of the table is a variant of."""
    return title.partition(" ")[0].strip(",")


def load_of(title: str, rates: Rates, cluster: Cluster) -> float:
    """Seconds of work that a second brings."""
    return sum(count / rates[name] for name, count in cluster.wanted()[kind_of(title)].items())


def row(title: str, rates: Rates, cluster: Cluster) -> str:
    """A store: what it carries, what is wanted of it, and how many trials at a time it would carry."""
    wanted, load = cluster.wanted()[kind_of(title)], load_of(title, rates, cluster)
    carries = ", ".join(f"{_short(rates[name])} {name}" for name in wanted)
    wants = ", ".join(f"{_short(count)} {name}" for name, count in wanted.items())
    size = f"{rates['bytes'] / 1e6:.0f} MB" if "bytes" in rates else "–"
    return f"| {title} | {carries} | {size} | {wants} | {load:.2f} | {cluster.running / load:,.0f} |"


def _short(count: float) -> str:
    return f"{count:,.0f}" if count >= 100 else f"{count:.3g}"


def conclusion(found: Mapping[str, Rates], cluster: Cluster) -> str:
    """Which gives in first, each kind of store in its best place while all trials run, and what lifts it."""
    loads = {title: load_of(title, rates, cluster) for title, rates in found.items() if "16 trials" not in title}
    best = {kind: min((load, title) for title, load in loads.items() if kind_of(title) == kind) for kind in LIFTS}
    told = [
        f"{number}. {title}, load {load:.2f}: {LIFTS[kind_of(title)]}."
        for number, (load, title) in enumerate(sorted(best.values(), reverse=True), 1)
    ]
    return "\nEach in its best place, the first to give in first, and what lifts it:\n\n" + "\n".join(told) + "\n"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study-uri", required=True, help="an empty PostgreSQL database for the study")
    parser.add_argument("--tracking-uri", required=True, help="another one for MLflow")
    parser.add_argument("--server-uri", required=True, help="a third one for an MLflow server")
    parser.add_argument("--images", type=float, default=10_000, help="training images a second of a GPU: assumed")
    parser.add_argument("--out", type=Path, default=RESULTS / "scale.md", help="where the table goes")
    flags = parser.parse_args()
    cluster = Cluster(nodes=100, gpus=8, trials=4, images=flags.images, size=13_996, epochs=100, every=5)
    found = measured(flags.study_uri, flags.tracking_uri, flags.server_uri, cluster.running)
    text = INTRODUCTION.format(
        versions=versions("ray", "optuna", "mlflow", "sqlalchemy", "psycopg"),
        hardware=hardware(),
        points=len(TRAINED) + len(VALIDATED),
        kilobytes=PICTURE_BYTES // 1000,
        cluster=cluster,
        minutes=cluster.epoch_s * cluster.epochs / 60,
        hour=3600 * cluster.wanted()["driver"]["trials"],
    )
    rows = [row(title, rates, cluster) for title, rates in found.items()]
    with publishing(flags.out) as temporary:
        temporary.write_text(text + "\n".join(rows) + "\n" + conclusion(found, cluster))
    print(flags.out.read_text())


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
