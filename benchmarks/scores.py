"""Which validation score ranks configurations as AutoAttack ranks them on the test set? What a search should maximise.

    python benchmarks/scores.py                    # the digits: 60 configurations, two seeds; some forty minutes

Random configurations of the search space are trained to the end. Each is attacked on the reserve, of which the
validation images are a part, by PGD on three losses with 20 and with 10 steps, and on the test set by AutoAttack's
first half. Runs are kept in the Parquet file one by one, and not made again: the command goes on where it was broken
off.
"""

import argparse
import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from machine import RESULTS, hardware
from matplotlib.figure import Figure
from rungs import draw_configurations
from scipy.stats import spearmanr

from ltsd.attacks.autoattack import autoattack
from ltsd.attacks.domains import PIXELS
from ltsd.attacks.losses import cross_entropy, cw_margin, scaled_cross_entropy
from ltsd.config import Config
from ltsd.data import load_splits
from ltsd.data.batches import Split
from ltsd.data.longtail import class_groups
from ltsd.evaluation.evaluate import CHUNK, Accuracy, Correctness, clean_correctness, pgd_correctness
from ltsd.files import publishing
from ltsd.models.frozen import frozen
from ltsd.runs import open_run
from ltsd.teacher import teacher_config, teacher_gamma, teacher_split

BASE = Config.preset("digits")
LOSSES = {"CE": cross_entropy, "CW": cw_margin, "LSA": scaled_cross_entropy}
STEPS = (20, 10)
ENSEMBLES = {
    "clean": ("clean",),
    "PGD-20 on CE": ("CE-20",),
    "CW-20": ("CW-20",),
    "LSA-20": ("LSA-20",),
    "CW-10": ("CW-10",),
    "worst of clean, CW-20": ("clean", "CW-20"),
    "worst of clean, CW-10, LSA-10": ("clean", "CW-10", "LSA-10"),
    "worst of clean, CE-20, CW-20": ("clean", "CE-20", "CW-20"),
    "worst of clean, CE-10, CW-10, LSA-10": ("clean", "CE-10", "CW-10", "LSA-10"),
    "worst of clean, CE-20, CW-20, LSA-20": ("clean", "CE-20", "CW-20", "LSA-20"),
}
"""What is compared: the attacks under all of which an image has to be right."""
TRUTH = "APGD-CE+T"
GROUPS = ("all", "tail")


def run_of(number: int, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train one configuration on one seed; its scores by `<images>/<score>/<classes>`. One thread."""
    torch.set_num_threads(1)
    config = BASE.override(params).override({"seed": seed})
    splits, device = load_splits(config.data), torch.device("cpu")
    groups = class_groups(splits.train.class_counts())
    gamma = teacher_gamma(config, splits.imbalance_ratio)
    data = teacher_split(config, splits.train, gamma)
    taught = open_run(teacher_config(config, gamma), splits, data, None, device, teacher=None, resume=None)
    list(taught.epochs())
    run = open_run(config, splits, splits.train, None, device, teacher=taught.state.model, resume=None)
    list(run.epochs())
    model = frozen(run.state.model.eval().requires_grad_(False))
    right = dict(attacked(model, splits.reserve, config))
    is_val = torch.isin(splits.reserve.rows, splits.val.rows)
    labels = splits.reserve.labels[splits.reserve.rows]
    row: dict[str, Any] = {"configuration": number, "seed": seed}
    for name, attacks in ENSEMBLES.items():
        standing = torch.stack([right[attack] for attack in attacks]).all(0)
        for images, part in (("reserve", torch.ones_like(is_val)), ("val", is_val)):
            correctness = Correctness(standing[part], labels[part], splits.test.num_classes)
            row |= values(f"{images}/{name}", Accuracy.of(correctness, groups))
    return row | values(f"test/{TRUTH}", Accuracy.of(truth(model, splits.test, config), groups))


def attacked(model: torch.nn.Module, split: Split, config: Config) -> Iterator[tuple[str, torch.Tensor]]:
    """Which images [N] stay right under each attack, by its name."""
    yield "clean", clean_correctness(model, split).right
    for steps, (name, loss) in itertools.product(STEPS, LOSSES.items()):
        size = config.attack.resolved_step_size * 20 / steps if steps < 20 else config.attack.resolved_step_size
        found = pgd_correctness(
            model, split, domain=PIXELS, eps=config.attack.eps, step_size=size, steps=steps, seed=1, loss=loss
        )
        yield f"{name}-{steps}", found.right


def truth(model: torch.nn.Module, test: Split, config: Config) -> Correctness:
    """Which test images AutoAttack's first half leaves standing."""
    inputs, labels = test.take(torch.arange(len(test)))
    *_, (_, standing) = autoattack(
        model, inputs, labels, eps=config.attack.eps, version="apgd-ce+t", seed=0, batch_size=CHUNK
    )
    return Correctness(standing, labels, test.num_classes)


def values(name: str, accuracy: Accuracy) -> dict[str, float]:
    """Over all classes, and over the tail."""
    return {f"{name}/all": accuracy.balanced, f"{name}/tail": accuracy.group("tail")}


def correlation(rows: list[dict[str, Any]], score: str, group: str) -> float:
    """Spearman's rank correlation of a score with the test accuracy of the same classes, the mean over seeds."""
    seeds = sorted({row["seed"] for row in rows})
    found = []
    for seed in seeds:
        of_seed = [row for row in rows if row["seed"] == seed]
        pairs = [(row[f"{score}/{group}"], row[f"test/{TRUTH}/{group}"]) for row in of_seed]
        found.append(spearmanr(*zip(*pairs, strict=True)).statistic)
    return float(np.mean(found))


def excess(rows: list[dict[str, Any]], score: str) -> float:
    """By how much, in points, the winner's score is above its test accuracy; the mean over seeds."""
    found = []
    for seed in sorted({row["seed"] for row in rows}):
        best = max((row for row in rows if row["seed"] == seed), key=lambda row: row[f"{score}/all"])
        found.append(100 * (best[f"{score}/all"] - best[f"test/{TRUTH}/all"]))
    return float(np.mean(found))


def winner(rows: list[dict[str, Any]], score: str) -> tuple[float, float]:
    """The test accuracy of the configuration that a score would choose, all classes and tail, the mean over seeds."""
    best = [
        max((row for row in rows if row["seed"] == seed), key=lambda row: row[f"{score}/all"])
        for seed in sorted({row["seed"] for row in rows})
    ]
    all_classes, tail = (float(np.mean([100 * row[f"test/{TRUTH}/{group}"] for row in best])) for group in GROUPS)
    return all_classes, tail


def table(rows: list[dict[str, Any]]) -> str:
    """Every score, in Markdown."""
    lines = [
        "| score | validation: all | tail | reserve: all | tail | winner's test: all | tail | winner's excess |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ENSEMBLES:
        cells = [correlation(rows, f"{images}/{name}", group) for images in ("val", "reserve") for group in GROUPS]
        best, tail = winner(rows, f"val/{name}")
        numbers = " | ".join(f"{cell:.2f}" for cell in cells)
        lines.append(f"| {name} | {numbers} | {best:.1f} | {tail:.1f} | {excess(rows, f'val/{name}'):+.1f} |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]]) -> Figure:
    """The score that was maximised before and the worst case of three, against the test accuracy."""
    figure = Figure(figsize=(9, 4), dpi=80, layout="constrained")
    for axes, name in zip(figure.subplots(1, 2, sharey=True), ("PGD-20 on CE", list(ENSEMBLES)[-1]), strict=True):
        for seed in sorted({row["seed"] for row in rows}):
            pairs = [(r[f"val/{name}/all"], r[f"test/{TRUTH}/all"]) for r in rows if r["seed"] == seed]
            axes.scatter(*zip(*pairs, strict=True), s=14, label=f"seed {seed}")
        axes.axline((0.6, 0.6), slope=1, color="#999999", linewidth=0.8)
        axes.set(
            xlabel=f"validation, {name}",
            ylabel=f"test, {TRUTH}",
            title=f"Spearman {correlation(rows, f'val/{name}', 'all'):.2f}",
        )
        axes.legend(fontsize="small")
    return figure


def main() -> None:
    """Make the runs that are missing, two at a time; write table and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configurations", type=int, default=60, help="how many (default: 60)")
    parser.add_argument("--seeds", type=int, default=2, help="how many (default: 2)")
    parser.add_argument("--out", type=Path, default=RESULTS / "scores", help="where all goes, without suffix")
    flags = parser.parse_args()
    kept = flags.out.with_suffix(".parquet")
    rows: list[dict[str, Any]] = pq.read_table(kept).to_pylist() if kept.exists() else []
    done = {(row["configuration"], row["seed"]) for row in rows}
    drawn = draw_configurations(flags.configurations, seed=0)
    wanted = [(n, params, seed) for n, params in enumerate(drawn) for seed in range(flags.seeds)]
    missing = [run for run in wanted if (run[0], run[2]) not in done]
    with ProcessPoolExecutor(2) as pool:
        for row in pool.map(run_of, *zip(*missing, strict=True)) if missing else ():
            rows.append(row)
            with publishing(kept) as temporary:
                pq.write_table(pa.Table.from_pylist(rows), temporary)
            print(f"{len(rows)}/{len(wanted)}: {100 * row[f'test/{TRUTH}/all']:.1f}", flush=True)
    with publishing(flags.out.with_suffix(".md")) as temporary:
        temporary.write_text(
            f"# Scores: what ranks configurations as AutoAttack does?\n\n{len(drawn)} random configurations of LTSD on "
            f"the digits at imbalance ratio 20, {flags.seeds} seeds. Spearman's rank correlation of a validation score "
            f"with the test accuracy under {TRUTH} (AutoAttack's first half) of the same classes, on the "
            f"{len(load_splits(BASE.data).val)} validation images and on the whole reserve, the mean over seeds; the "
            f"test accuracy of the configuration with the highest validation score, and by how many points that score "
            f"is above it. Attacks of 10 steps take steps twice as long.\nMade by `python benchmarks/scores.py` on "
            f"{hardware()}; every run in scores.parquet.\n\n{table(rows)}\n\n![scores](scores.png)\n"
        )
    draw(rows).savefig(flags.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
