"""Methods on label maps side by side: the same images and seeds, the test set read once by each run.

    python benchmarks/segmentation.py                       # digits scenes, five methods, five seeds
    python benchmarks/segmentation.py --rows at-bsl,ltsd    # two rows again
    python benchmarks/segmentation.py camvid --seeds 3      # street scenes of 96x72, three radii

Both stages are trained on the training images with the defaults of the data; of CamVid, these are its training and its
validation images, which tests do not see. Runs are made one after another, each with a checkpoint an epoch and counts
of its exam after every part, in the folder of --out: what is there is not made again.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, hardware, versions
from segmentation_data import CAMVID, Measurement, camvid, digits_scenes

from ltsd.config import Config
from ltsd.data import Splits, load_splits
from ltsd.data.batches import Split
from ltsd.evaluation.comparison import paired_overlap
from ltsd.evaluation.map_exam import LOSSES, SEA, MapExamResult, examine_maps, read_exam
from ltsd.evaluation.pixels import PixelCounts
from ltsd.files import publishing
from ltsd.knobs import Value
from ltsd.markdown import percent, spread, table
from ltsd.methods import METHODS
from ltsd.runs import open_run
from ltsd.teacher import teacher_config, teacher_gamma, teacher_split

CPU = torch.device("cpu")
BASELINE = "at-bsl"
ATTACKS = (*LOSSES, SEA[CPU.type])


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
    missing = [radius for radius in about.radii if not is_whole(about.kept(method, seed, radius))]
    if not missing:
        return
    config = about.config.override({"method": method, "seed": seed})
    model, seconds = trained(config, splits, about.folder / f"{method}-s{seed}.pt")
    for radius in missing:
        result = exam_of(about, splits, model, radius, about.kept(method, seed, radius))
        with publishing(about.kept(method, seed, radius)) as temporary:
            temporary.write_text(json.dumps(result.as_json() | {"seconds": seconds}, indent=1))


def is_whole(kept: Path) -> bool:
    """Return whether an exam is there, with every attack that there is now; its counts go on from what they have."""
    return kept.exists() and f"test/{SEA[CPU.type]}_miou" in json.loads(kept.read_text())["metrics"]


def exam_of(about: Measurement, splits: Splits, model: torch.nn.Module, radius: str, kept: Path) -> MapExamResult:
    """Examine a model at one radius; go on with counts that are there."""
    counts, started = splits.complete.class_counts(), time.perf_counter()
    attack, counts_file = about.radii[radius], kept.with_suffix(".parquet")
    parts = examine_maps(model, splits.test, counts, attack, "none", keep=counts_file, blocks=splits.test_blocks)
    results = []
    for done, result in islice(parts, None if radius == about.first else len(ATTACKS)):
        print(f"{kept.stem}: {done} done after {time.perf_counter() - started:.0f} s", flush=True)
        results.append(result)
    return results[-1]


def rows_of(about: Measurement, methods: Sequence[str], seeds: int) -> list[list[str]]:
    """Mean and standard deviation over seeds, percent."""
    columns = {
        "clean": ("clean_miou", about.first),
        "tail clean": ("tail_clean_miou", about.first),
        "corruptions": ("corruption_miou", about.first),
    }
    for radius in about.radii:
        columns |= {
            f"{title}{f', {radius}/255' if radius else ''}": (metric, radius)
            for title, metric in (
                ("PGD-20", "pgd20_miou"),
                ("worst of 6", "robust_miou"),
                ("tail, worst of 6", "tail_robust_miou"),
            )
        }
    rows = [["", *columns, "training, s"]]
    for method in methods:
        runs = {
            radius: [json.loads(about.kept(method, seed, radius).read_text()) for seed in range(seeds)]
            for radius in about.radii
        }
        cells = [
            percent(*spread([run["metrics"][f"test/{metric}"] for run in runs[radius]]))
            for metric, radius in columns.values()
        ]
        rows.append([METHODS[method].title, *cells, f"{statistics.fmean(r['seconds'] for r in runs[about.first]):.0f}"])
    return rows


def leads_of(about: Measurement, methods: Sequence[str], seeds: int) -> list[list[str]]:
    """What every row leads the baseline by, in points, with its interval."""
    told = [
        (radius, attack, group) for radius in about.radii for attack in ("clean", "worst") for group in ("", "tail")
    ]
    told = [one for one in told if one[1] == "worst" or one[0] == about.first]
    groups: dict[str, Any] = json.loads(about.kept(BASELINE, 0, about.first).read_text())["groups"]
    titles = [
        f"{'tail, ' if group else ''}{'clean' if attack == 'clean' else 'worst of 6'}"
        f"{f', {radius}/255' if radius and attack == 'worst' else ''}"
        for radius, attack, group in told
    ]
    rows = [[f"minus {METHODS[BASELINE].title}", *titles]]
    for method in methods:
        if method == BASELINE:
            continue
        cells = []
        for radius, attack, group in told:
            ours, theirs = (
                [counts_of(about.kept(row, seed, radius), attack) for seed in range(seeds)]
                for row in (method, BASELINE)
            )
            found = paired_overlap(ours, theirs, classes=groups[group] if group else None, seed=0)
            cells.append(f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]")
        rows.append([METHODS[method].title, *cells])
    return rows


def counts_of(kept: Path, attack: str) -> PixelCounts:
    """The counts of a run, clean or in the worst case of the attacks."""
    counts, _ = read_exam(kept.with_suffix(".parquet"))
    return counts[attack]


def report(about: Measurement, splits: Splits, methods: Sequence[str], seeds: int, command: str) -> str:
    """Return the page of the results."""
    config, (_, *shape) = about.config, splits.shape
    radii = f"exams at eps {', '.join(f'{radius}/255' for radius in about.radii)}; " if len(about.radii) > 1 else ""
    drawn = "images" if splits.test_blocks is None else f"{splits.test_blocks.max() + 1} blocks of test frames"
    text = [
        f"# Label maps: {about.name}\n",
        f"{len(splits.complete):,} training images of {shape[1]}x{shape[0]}, pixels of the classes "
        f"{splits.imbalance_ratio:.0f}:1; {config.model.name} of width {config.model.channels}, {config.epochs} epochs "
        f"of PGD-{config.attack.steps}, eps {config.attack.eps:.4g}; {radii}mean IoU on {len(splits.test):,} test "
        f"images in percent, mean ± standard deviation of {seeds} seeds. *Worst of 6*: of each image one of "
        "PGD-20 on cross-entropy, SegPGD-20, PGD-20 on the three losses of SEA, and SEA.\n",
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
    parser.add_argument("data", nargs="?", default="digits-scenes", choices=("digits-scenes", "camvid"))
    parser.add_argument("--rows", default="natural,at,trades,at-bsl,ltsd", help="methods, comma-separated")
    parser.add_argument("--seeds", type=int, default=5, help="how many (default: 5)")
    parser.add_argument("--out", type=Path, help="folder of the runs (default: runs/segmentation-DATA)")
    parser.add_argument("--source", type=Path, default=CAMVID, help="folder of CamVid's tables (default: %(default)s)")
    parser.add_argument("--size", default="96x72", help="of CamVid's images (default: 96x72)")
    parser.add_argument("--epochs", type=int, default=30, help="of the students on CamVid (default: 30)")
    parser.add_argument("--width", type=int, default=16, help="of the network on CamVid (default: 16)")
    parser.add_argument("--eps", default="4,2,8", help="radii on CamVid, in 255ths (default: 4,2,8)")
    parser.add_argument("--page", type=Path, help="where to write the table (default: benchmarks/results)")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    methods, folder = flags.rows.split(","), flags.out or Path(f"runs/segmentation-{flags.data}")
    folder.mkdir(parents=True, exist_ok=True)
    if flags.data == "camvid":
        width, height = map(int, flags.size.split("x"))
        own: dict[str, Value] = {"epochs": flags.epochs, "model.width": flags.width}
        about = camvid(folder, flags.source, (width, height), own, flags.eps.split(","))
    else:
        about = digits_scenes(folder)
    splits = load_splits(about.config.data)
    for seed in range(flags.seeds):
        for method in methods:
            examined(about, splits, method, seed)
            print(f"{method}, seed {seed}: done", flush=True)
    text = report(about, splits, methods, flags.seeds, f"python {' '.join(sys.argv)}")
    with publishing(flags.page or RESULTS / f"segmentation-{flags.data}.md") as temporary:
        temporary.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
