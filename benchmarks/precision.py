"""Does training in bf16 change what comes out? The digits, in both precisions, on the same seeds, examined in fp32.

python benchmarks/precision.py        # writes benchmarks/results/precision.md, about four minutes on one core
"""

import argparse
import statistics
from pathlib import Path

import torch
from machine import RESULTS, hardware, versions

from ltsd.config import Config
from ltsd.data import Splits, load_splits
from ltsd.data.longtail import class_groups
from ltsd.files import publishing
from ltsd.methods import METHODS
from ltsd.runs import open_run
from ltsd.teacher import teacher_config, teacher_gamma, teacher_split
from ltsd.train import validate

SHOWN = {
    "clean": "test/clean_acc",
    "tail clean": "test/tail_clean_acc",
    "PGD-20": "test/robust_acc",
    "tail PGD-20": "test/tail_robust_acc",
}


def outcome(config: Config, splits: Splits) -> dict[str, float]:
    """Train on the complete training set, the teacher too where there is one, and read the test set."""
    device, data, teacher = torch.device("cpu"), splits.complete, None
    if METHODS[config.method].needs_teacher:
        gamma = teacher_gamma(config, splits.imbalance_ratio)
        resampled = teacher_split(config, data, gamma)
        taught = open_run(teacher_config(config, gamma), splits, resampled, None, device, teacher=None, resume=None)
        list(taught.epochs())
        teacher = taught.state.model
    run = open_run(config, splits, data, None, device, teacher=teacher, resume=None)
    list(run.epochs())
    values, _ = validate(config, run.state.model.eval(), splits.test, class_groups(data.class_counts()), "test")
    return values


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="seeds, counting from 0 (default: 5)")
    parser.add_argument("--out", type=Path, default=RESULTS / "precision.md", help="where the table goes")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    base = Config.preset("digits")
    splits = load_splits(base.data)
    rows = [f"| method | precision | {' | '.join(SHOWN)} |", "|---|---|" + "---|" * len(SHOWN)]
    for method in ("at-bsl", "ltsd"):
        for precision in ("fp32", "bf16"):
            config = base.override({"method": method, "precision": precision})
            found = [outcome(config.override({"seed": seed}), splits) for seed in range(flags.seeds)]
            columns = [[100 * values[metric] for values in found] for metric in SHOWN.values()]
            cells = [f"{statistics.fmean(column):.1f} ± {statistics.stdev(column):.1f}" for column in columns]
            rows.append(f"| {METHODS[method].title} | {precision} | {' | '.join(cells)} |")
            print(rows[-1], flush=True)
    with publishing(flags.out) as temporary:
        temporary.write_text(
            f"# Training in bf16 and in fp32: digits, {len(splits.test)} test images, {flags.seeds} seeds\n\n"
            f"Made by `python benchmarks/precision.py --seeds {flags.seeds}`; {versions('torch', 'ltsd')}; "
            f"{hardware()}.\nClass-balanced accuracy in percent, mean ± standard deviation; eps 0.1; "
            "both examined in fp32.\n\n" + "\n".join(rows) + "\n"
        )


if __name__ == "__main__":
    main()
