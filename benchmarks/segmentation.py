"""Methods on label maps side by side: the same images and seeds, the test set read once by each run.

    python benchmarks/segmentation.py                       # digits scenes, four methods, five seeds
    python benchmarks/segmentation.py --rows at-bsl,ltsd    # two rows again

Both stages are trained on the training images with the defaults of the data. What is measured is kept run by run, in
the folder of --out, and not made again.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, hardware, versions

from ltsd.config import Config
from ltsd.data import load_splits
from ltsd.evaluation.comparison import paired_overlap
from ltsd.evaluation.map_exam import examine_maps, read_exam
from ltsd.evaluation.pixels import PixelCounts
from ltsd.files import publishing
from ltsd.markdown import percent, spread, table
from ltsd.methods import METHODS
from ltsd.runs import open_run
from ltsd.teacher import teacher_config, teacher_gamma, teacher_split

CPU = torch.device("cpu")
COLUMNS = {
    "clean": "test/clean_miou",
    "tail clean": "test/tail_clean_miou",
    "PGD-20": "test/pgd20_miou",
    "worst of 5": "test/robust_miou",
    "tail, worst of 5": "test/tail_robust_miou",
    "corruptions": "test/corruption_miou",
}
BASELINE = "at-bsl"


def examined(source: str, folder: Path, method: str, seed: int) -> None:
    """Train one run with its teacher and keep its exam; nothing if that is there. One thread."""
    kept = folder / f"{method}-s{seed}.json"
    if kept.exists():
        return
    torch.set_num_threads(1)
    config = Config.preset(source).override({"method": method, "seed": seed})
    splits, teacher = load_splits(config.data), None
    if METHODS[method].needs_teacher:
        gamma = teacher_gamma(config, splits.imbalance_ratio)
        data = teacher_split(config, splits.complete, gamma)
        stage1 = open_run(teacher_config(config, gamma), splits, data, None, CPU, teacher=None, resume=None)
        list(stage1.epochs())
        teacher = stage1.state.model
    run = open_run(config, splits, splits.complete, None, CPU, teacher=teacher, resume=None)
    seconds = sum(metrics.seconds for metrics in run.epochs())
    counts = splits.complete.class_counts()
    model = run.state.model.eval().requires_grad_(False)
    *_, (_, result) = examine_maps(model, splits.test, counts, config.attack, "none", keep=kept.with_suffix(".parquet"))
    with publishing(kept) as temporary:
        temporary.write_text(json.dumps(result.as_json() | {"seconds": seconds}, indent=1))


def rows_of(folder: Path, methods: Sequence[str], seeds: int) -> list[list[str]]:
    """Mean and standard deviation over seeds, percent."""
    rows = [["", *COLUMNS, "training, s"]]
    for method in methods:
        runs = [json.loads((folder / f"{method}-s{seed}.json").read_text()) for seed in range(seeds)]
        cells = [percent(*spread([run["metrics"][name] for run in runs])) for name in COLUMNS.values()]
        rows.append([METHODS[method].title, *cells, f"{statistics.fmean(run['seconds'] for run in runs):.0f}"])
    return rows


def leads_of(folder: Path, methods: Sequence[str], seeds: int) -> list[list[str]]:
    """What every row leads the baseline by, in points, with its interval."""
    about: dict[str, Any] = json.loads((folder / f"{BASELINE}-s0.json").read_text())
    rows = [[f"minus {METHODS[BASELINE].title}", "clean", "tail clean", "worst of 5", "tail, worst of 5"]]
    sides = {method: [counts_of(folder, method, seed) for seed in range(seeds)] for method in methods}
    for method in methods:
        if method == BASELINE:
            continue
        cells = []
        for attack, group in (("clean", ""), ("clean", "tail"), ("worst", ""), ("worst", "tail")):
            ours, theirs = ([of_seed[attack] for of_seed in sides[row]] for row in (method, BASELINE))
            classes = about["groups"][group] if group else None
            found = paired_overlap(ours, theirs, classes=classes, seed=0)
            cells.append(f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]")
        rows.append([METHODS[method].title, *cells])
    return rows


def counts_of(folder: Path, method: str, seed: int) -> dict[str, PixelCounts]:
    """The counts of a run, clean and in the worst case of the attacks."""
    counts, _ = read_exam(folder / f"{method}-s{seed}.parquet")
    return counts


def main() -> None:
    """Make the runs that are missing, two at a time; write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits-scenes", help="source with label maps (default: digits-scenes)")
    parser.add_argument("--rows", default="natural,at,trades,at-bsl,ltsd", help="methods, comma-separated")
    parser.add_argument("--seeds", type=int, default=5, help="how many (default: 5)")
    parser.add_argument("--out", type=Path, default=Path("runs/segmentation"), help="folder of the runs")
    flags = parser.parse_args()
    methods = flags.rows.split(",")
    flags.out.mkdir(parents=True, exist_ok=True)
    config = Config.preset(flags.data)
    splits = load_splits(config.data)
    jobs = [(method, seed) for seed in range(flags.seeds) for method in methods]
    with ProcessPoolExecutor(2) as pool:
        done = [pool.submit(examined, flags.data, flags.out, *job) for job in jobs]
        for (method, seed), run in zip(jobs, done, strict=True):
            run.result()
            print(f"{method}, seed {seed}: done", flush=True)
    text = [
        f"# Label maps: {flags.data}\n",
        f"{len(splits.complete):,} training images, pixels of the classes {splits.imbalance_ratio:.0f}:1; "
        f"{config.model.name} of width {config.model.channels}, {config.epochs} epochs of PGD-{config.attack.steps}, "
        f"eps {config.attack.eps:.4g}; mean IoU on {len(splits.test):,} test images in percent, mean ± standard "
        f"deviation of {flags.seeds} seeds. *Worst of 5*: image by image the worst of PGD-20 on cross-entropy, "
        "SegPGD-20, and PGD-20 on the three losses of SEA.\n",
        f"Made by `python benchmarks/segmentation.py` on {hardware()}, {versions('torch')}.\n",
        table(rows_of(flags.out, methods, flags.seeds)),
        "In points, with the 95% interval of a paired bootstrap over images and seeds:\n",
        table(leads_of(flags.out, methods, flags.seeds)),
    ]
    with publishing(RESULTS / f"segmentation-{Path(flags.data).name}.md") as temporary:
        temporary.write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    main()
