"""LTSD against AT-BSL and AT on the long-tailed digits: untuned, same budget, five seeds.

    python benchmarks/digits.py          # writes benchmarks/results/digits.md, two and a half minutes on two cores

Every method trains on the complete training set and reads the test set once.
"""

import argparse
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from ltsd.config import Config
from ltsd.data import load_splits
from ltsd.exam import examine
from ltsd.files import publishing
from ltsd.runs import open_run
from ltsd.teacher import teacher_config, teacher_gamma, teacher_split

RESULTS = Path(__file__).parent / "results"
METHODS = {"ltsd": "LTSD", "at-bsl": "AT-BSL", "at": "AT"}
COLUMNS = {
    "clean": "test/clean_acc",
    "tail clean": "test/tail_clean_acc",
    "PGD-20": "test/pgd20_acc",
    "tail PGD-20": "test/tail_robust_acc",
}


def measure(method: str, seed: int) -> dict[str, float]:
    """Train a method with its defaults from a seed and examine it; one thread."""
    torch.set_num_threads(1)
    config = Config.preset("digits").override({"method": method, "seed": seed})
    splits = load_splits(config.data)
    device = torch.device("cpu")
    teacher = None
    if method == "ltsd":
        gamma = teacher_gamma(config, splits.imbalance_ratio)
        data = teacher_split(splits.complete, gamma, seed)
        taught = open_run(teacher_config(config, gamma), splits, data, None, device, teacher=None, resume=None)
        list(taught.epochs())
        teacher = taught.state.model
    run = open_run(config, splits, splits.complete, None, device, teacher=teacher, resume=None)
    list(run.epochs())
    model = run.state.model.eval().requires_grad_(False)
    results = [result for _, result in examine(model, splits.test, run.data.class_counts(), config.attack, "none")]
    return results[-1].values()


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Mean ± standard deviation over seeds in percent, and what LTSD gains."""
    lines = ["| method | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    means: dict[str, list[float]] = {}
    for method, exams in found.items():
        values = [[100 * exam[metric] for exam in exams] for metric in COLUMNS.values()]
        means[method] = [statistics.fmean(column) for column in values]
        cells = [f"{statistics.fmean(column):.1f} ± {statistics.stdev(column):.1f}" for column in values]
        lines.append(f"| {METHODS[method]} | " + " | ".join(cells) + " |")
    for rival in ("at-bsl", "at"):
        gains = [f"{ours - theirs:+.1f}" for ours, theirs in zip(means["ltsd"], means[rival], strict=True)]
        lines.append(f"| LTSD − {METHODS[rival]} | " + " | ".join(gains) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all methods on all seeds, two at a time, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many, counting from 0 (default: 5)")
    parser.add_argument("--out", type=Path, default=RESULTS / "digits.md", help="where the table goes")
    flags = parser.parse_args()
    jobs = [(method, seed) for method in METHODS for seed in range(flags.seeds)]
    found: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    with ProcessPoolExecutor(2) as pool:
        for (method, seed), values in zip(jobs, pool.map(measure, *zip(*jobs, strict=True)), strict=True):
            found[method].append(values)
            print(f"{method} seed {seed}: PGD-20 {100 * values['test/pgd20_acc']:.1f}", flush=True)
    text = table(found)
    print(text)
    with publishing(flags.out) as temporary:
        temporary.write_text(
            f"# Digits, imbalance ratio 20: untuned methods, {flags.seeds} seeds\n\n"
            "Class-balanced accuracy on the whole test set in percent, mean ± standard deviation over seeds; "
            f"eps 0.1, torch {torch.__version__}, CPU.\nMade by `python benchmarks/digits.py`.\n\n{text}"
        )


if __name__ == "__main__":
    main()
