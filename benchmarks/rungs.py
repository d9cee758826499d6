"""How well does an early score preview the final one? The measurement behind sweeps/study/scheduler.py.

    python benchmarks/rungs.py                    # writes benchmarks/results/rungs.md and .png, about two minutes

Random configurations of the search space are trained to the end on the digits, validated along the way; the table
has Spearman's rank correlation of the score at each validated epoch with the last one.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import optuna
import torch
from machine import RESULTS
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from ltsd.config import Config
from ltsd.data import load_splits
from ltsd.files import publishing
from ltsd.knobs import Value
from ltsd.runs import open_run
from ltsd.tasks import validated
from ltsd.teacher import teacher_config, teacher_gamma, teacher_split
from sweeps.settings.groups import groups_named
from sweeps.study.space import search_space

ROBUST = "val/robust_acc"

BASE = Config.preset("digits").override({"evaluate.every": 2})
FIXED = ("optim.weight_decay", "optim.batch_size", "optim.ema_decay", "robustlt.strength")
"""What the random points leave as it is."""


def draw_configurations(count: int, seed: int) -> list[dict[str, Value]]:
    """Random points of the method's own knobs, the balance's and the learning rate."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    space = search_space(BASE, load_splits(BASE.data).imbalance_ratio, FIXED, groups_named(None, BASE.method))
    return [dict(study.ask(space).params) for _ in range(count)]


def scores_of(params: dict[str, Value]) -> dict[int, float]:
    """The validated score of one configuration at every validated epoch; one thread."""
    torch.set_num_threads(1)
    config = BASE.override(params)
    splits = load_splits(config.data)
    device = torch.device("cpu")
    gamma = teacher_gamma(config, splits.imbalance_ratio)
    data = teacher_split(config, splits.train, gamma)
    taught = open_run(teacher_config(config, gamma), splits, data, None, device, teacher=None, resume=None)
    list(taught.epochs())
    teacher = taught.state.model
    run = open_run(config, splits, splits.train, splits.val, device, teacher=teacher, resume=None)
    return {metrics.epoch: metrics.values[ROBUST] for metrics in run.epochs() if ROBUST in metrics.values}


def correlations(scores: list[dict[int, float]]) -> dict[int, float]:
    """Spearman's rank correlation with the last score, by epoch."""
    last = [score[max(score)] for score in scores]
    return {epoch: float(spearmanr([score[epoch] for score in scores], last).statistic) for epoch in scores[0]}


def survivors(scores: list[dict[int, float]], epoch: int) -> int:
    """How many of the best quarter at the end stand above the median at an epoch."""
    by_end = sorted(scores, key=lambda score: -score[max(score)])[: len(scores) // 4]
    median = sorted(score[epoch] for score in scores)[len(scores) // 2]
    return sum(score[epoch] >= median for score in by_end)


def main() -> None:
    """Train the configurations, two at a time, and write table and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configurations", type=int, default=24, help="how many (default: 24)")
    parser.add_argument("--out", type=Path, default=RESULTS / "rungs", help="where table and picture go, no suffix")
    flags = parser.parse_args()
    drawn = draw_configurations(flags.configurations, seed=0)
    scores = []
    with ProcessPoolExecutor(2) as pool:
        for index, score in enumerate(pool.map(scores_of, drawn)):
            scores.append(score)
            print(f"configuration {index + 1}/{len(drawn)}: {100 * score[max(score)]:.1f}", flush=True)
    found = correlations(scores)
    quarter = len(scores) // 4
    lines = [f"| epoch | rank correlation | best quarter above the median, of {quarter} |", "|---|---|---|"]
    lines += [f"| {epoch} | {rho:.2f} | {survivors(scores, epoch)} |" for epoch, rho in found.items()]
    with publishing(flags.out.with_suffix(".md")) as temporary:
        temporary.write_text(
            f"# Rungs: does an early score preview the last one?\n\n{len(drawn)} random configurations of LTSD on the "
            f"digits at imbalance ratio 20, {BASE.epochs} epochs, score: balanced validation accuracy, "
            f"{validated(BASE)}, of the averaged weights. Spearman's rank correlation with the score after the "
            "last epoch, and how many of the finally best quarter a cut at the median would keep.\n"
            "Made by `python benchmarks/rungs.py`.\n\n" + "\n".join(lines) + "\n\n![rungs](rungs.png)\n"
        )
    figure = Figure(figsize=(9, 3.6), dpi=80, layout="constrained")
    left, right = figure.subplots(1, 2)
    for score in scores:
        left.plot(list(score), list(score.values()), alpha=0.6)
    left.set(xlabel="epoch", ylabel=ROBUST, title=f"{len(scores)} random configurations")
    right.plot(list(found), list(found.values()), marker="o")
    right.set(xlabel="epoch", ylabel="Spearman", ylim=(-0.1, 1.05), title="rank correlation with the last score")
    figure.savefig(flags.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
