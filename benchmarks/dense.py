"""Methods on label maps and boxes side by side: the same images and seeds, the test set read once by each run.

    python benchmarks/dense.py                       # digits scenes, five methods, five seeds
    python benchmarks/dense.py --rows at-bsl,ltsd    # two rows again
    python benchmarks/dense.py digits-boxes          # the same scenes, digits as boxes
    python benchmarks/dense.py camvid --seeds 3      # street scenes of 96x72, three radii
    python benchmarks/dense.py bccd --seeds 3        # blood cells as boxes, 128x96, two radii

Both stages are trained on the training images with the defaults of the data; of CamVid and BCCD, these are their
training and validation images, which tests do not see. Runs are made one after another, each with a checkpoint an
epoch and answers of its exam after every part, in the folder of --out: what is there is not made again.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from dense_data import MEASUREMENTS, Measurement, Request
from machine import RESULTS, hardware, versions

from ltsd.config import Config
from ltsd.data import Splits, load_splits
from ltsd.data.batches import Split
from ltsd.data.longtail import class_groups
from ltsd.evaluation.exams import EXAMS, Examined
from ltsd.files import publishing
from ltsd.markdown import percent, spread, table
from ltsd.methods import METHODS
from ltsd.runs import open_run
from ltsd.tasks import TASKS
from ltsd.teacher import teacher_config, teacher_gamma, teacher_split

CPU = torch.device("cpu")
BASELINE = "at-bsl"


def trained(config: Config, splits: Splits, path: Path) -> tuple[torch.nn.Module, float]:
    """Train a run, with its teacher where the method has one, or go on with it; return its model and its seconds."""
    if not METHODS[config.method].needs_teacher:
        return fitted(config, splits, splits.complete, None, path)
    gamma = teacher_gamma(config, splits.imbalance_ratio)
    balanced = teacher_split(config, splits.complete, gamma)
    stage1 = path.with_name(f"teacher-s{config.seed}.pt")
    teacher, _ = fitted(teacher_config(config, gamma), splits, balanced, None, stage1)
    return fitted(config, splits, splits.complete, teacher, path)


def fitted(
    config: Config, splits: Splits, data: Split, teacher: torch.nn.Module | None, path: Path
) -> tuple[torch.nn.Module, float]:
    """Train to the end, from the checkpoint at `path` if there is one."""
    resume = path if path.exists() else None
    run = open_run(config, splits, data, None, CPU, teacher=teacher, resume=resume)
    for metrics in run.epochs():
        run.save(path)
        print(f"{path.stem} epoch {metrics.epoch}/{config.epochs}  {metrics.seconds:.1f} s", flush=True)
    return run.state.model.eval().requires_grad_(False), sum(metrics.seconds for metrics in run.state.history)


def examined(about: Measurement, splits: Splits, method: str, seed: int) -> None:
    """Train one run and keep its exams; nothing of what is there is made again."""
    missing = [radius for radius in about.radii if not about.kept(method, seed, radius).exists()]
    if not missing:
        return
    config = about.config.override({"method": method, "seed": seed})
    model, seconds = trained(config, splits, about.folder / f"{method}-s{seed}.pt")
    for radius in missing:
        result = exam_of(about, splits, model, radius, about.kept(method, seed, radius))
        with publishing(about.kept(method, seed, radius)) as temporary:
            temporary.write_text(json.dumps(result.as_json() | {"seconds": seconds}, indent=1))


def exam_of(about: Measurement, splits: Splits, model: torch.nn.Module, radius: str, kept: Path) -> Examined:
    """Examine a model at one radius; go on with answers that are there. Only the first radius has corruptions too."""
    groups, started = class_groups(splits.complete.class_counts()), time.perf_counter()
    examine = EXAMS[about.config.task].on(splits)
    parts = examine(model, splits.test, groups, about.radii[radius], "none", keep=kept.with_suffix(".parquet"))
    last = "corruptions" if radius == about.first else about.last_attack
    for done, result in parts:
        print(f"{kept.stem}: {done} done after {time.perf_counter() - started:.0f} s", flush=True)
        if done == last:
            return result
    raise AssertionError(f"the exam has no part {last}")


def columns_of(about: Measurement) -> dict[str, tuple[str, str]]:
    """Return metric and radius by the title of a column."""
    exam = EXAMS[about.config.task]
    (worst, tail_worst), plain = exam.robust[0], (*exam.clean, "corruption")
    columns = {title: (exam.columns[title], about.first) for title in plain}
    for radius in about.radii:
        columns |= {
            about.titled(title, radius): (exam.columns[title], radius) for title in ("PGD-20", worst, tail_worst)
        }
    return columns


def rows_of(about: Measurement, methods: Sequence[str], seeds: int) -> list[list[str]]:
    """Mean and standard deviation over seeds, percent."""
    columns = columns_of(about)
    rows = [["", *columns, "training, s"]]
    for method in methods:
        runs = {
            radius: [json.loads(about.kept(method, seed, radius).read_text()) for seed in range(seeds)]
            for radius in about.radii
        }
        cells = [
            percent(*spread([run["metrics"][metric] for run in runs[radius]])) for metric, radius in columns.values()
        ]
        rows.append([METHODS[method].title, *cells, f"{statistics.fmean(r['seconds'] for r in runs[about.first]):.0f}"])
    return rows


def leads_of(about: Measurement, methods: Sequence[str], seeds: int) -> list[list[str]]:
    """What every row leads the baseline by, in points, with its interval."""
    exam = EXAMS[about.config.task]
    told = [(title, about.first, exam.leads[title]) for title in exam.clean]
    told += [(title, radius, exam.leads[title]) for radius in about.radii for title in exam.robust[0]]
    groups: dict[str, Any] = json.loads(about.kept(BASELINE, 0, about.first).read_text())["groups"]
    rows = [[f"minus {METHODS[BASELINE].title}", *(about.titled(title, radius) for title, radius, _ in told)]]
    for method in methods:
        if method == BASELINE:
            continue
        cells = []
        for _, radius, (attack, group) in told:
            ours, theirs = (
                [answers_of(about.config.task, about.kept(row, seed, radius))[attack] for seed in range(seeds)]
                for row in (method, BASELINE)
            )
            found = exam.compare(ours, theirs, classes=groups[group] if group else None, seed=0)
            cells.append(f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]")
        rows.append([METHODS[method].title, *cells])
    return rows


@cache
def answers_of(task: str, kept: Path) -> Mapping[str, Any]:
    """Return what the exam of a run kept beside its numbers, by attack."""
    return EXAMS[task].read(kept.with_suffix(".parquet"))[0]


def report(about: Measurement, splits: Splits, methods: Sequence[str], seeds: int, command: str) -> str:
    """Return the page of the results."""
    config, task, exam, (_, *shape) = about.config, TASKS[about.config.task], EXAMS[about.config.task], splits.shape
    radii = f"exams at eps {', '.join(f'{radius}/255' for radius in about.radii)}; " if len(about.radii) > 1 else ""
    drawn = "images" if splits.test_blocks is None else f"{splits.test_blocks.max() + 1} blocks of test frames"
    text = [
        f"# {about.title}\n",
        f"{len(splits.complete):,} training images of {shape[1]}x{shape[0]}, {task.counted} of the classes "
        f"{splits.imbalance_ratio:.0f}:1; {config.model.name} of width {config.model.channels}, {config.epochs} epochs "
        f"of PGD-{config.attack.steps}, eps {config.attack.eps:.4g}; {radii}{exam.mean_score} on {len(splits.test):,} "
        f"test images in percent, mean ± standard deviation of {seeds} seeds. {about.worst}\n",
        f"Made by `{command}` on {hardware()}, {versions('torch')}.\n",
        table(rows_of(about, methods, seeds)),
    ]
    if BASELINE in methods and len(methods) > 1:
        text += [
            f"In points, with the 95% interval of a paired bootstrap over {drawn} and seeds:\n",
            table(leads_of(about, methods, seeds)),
        ]
    return "\n".join(text)


def main() -> None:
    """Make the runs that are missing, one after another; write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="digits-scenes", choices=MEASUREMENTS)
    parser.add_argument("--rows", default="natural,at,trades,at-bsl,ltsd", help="methods, comma-separated")
    parser.add_argument("--seeds", type=int, default=5, help="how many (default: 5)")
    parser.add_argument("--out", type=Path, help="folder of the runs (default: runs/dense-DATA)")
    parser.add_argument("--source", type=Path, help="folder of CamVid's or BCCD's tables (default: beside the project)")
    parser.add_argument("--size", help="of the images of CamVid or BCCD (default: 96x72, 128x96)")
    parser.add_argument("--epochs", type=int, help="of the students (default: those of the data)")
    parser.add_argument("--width", type=int, help="of the network (default: that of the data)")
    parser.add_argument("--eps", help="radii on CamVid and BCCD, in 255ths (default: 4,2,8 and 4,2)")
    parser.add_argument("--page", type=Path, help="where to write the table (default: benchmarks/results)")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    methods, folder = flags.rows.split(","), flags.out or Path(f"runs/dense-{flags.data}")
    folder.mkdir(parents=True, exist_ok=True)
    own = {"epochs": flags.epochs, "model.width": flags.width}
    about = MEASUREMENTS[flags.data](folder, Request(flags.source, flags.size, flags.eps, own))
    splits = load_splits(about.config.data)
    for seed in range(flags.seeds):
        for method in methods:
            examined(about, splits, method, seed)
            print(f"{method}, seed {seed}: done", flush=True)
    text = report(about, splits, methods, flags.seeds, f"python {' '.join(sys.argv)}")
    with publishing(flags.page or RESULTS / f"{about.config.task}-{about.name}.md") as temporary:
        temporary.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
