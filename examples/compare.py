r"""Compare two models on the same test images: ours minus theirs in points, with a 95% paired bootstrap interval.

Two rows of a sweep, the same seeds in the same order on both sides:

    python examples/compare.py --checkpoint runs/NAME/checkpoints/final-ltsd-s0.pt \
        --ours runs/NAME/correctness/final-ltsd-s?.parquet --theirs runs/NAME/correctness/final-at-s?.parquet

Two runs of `python -m ltsd train`, after `python -m ltsd evaluate runs/one.pt --correctness runs/one.parquet` of each:

    python examples/compare.py --checkpoint runs/one.pt --ours runs/one.parquet --theirs runs/other.parquet
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ltsd.checkpoint import load_checkpoint
from ltsd.config import Config
from ltsd.data.longtail import class_groups
from ltsd.evaluation.comparison import paired_difference
from ltsd.evaluation.correctness import read_correctness
from ltsd.evaluation.evaluate import Correctness
from ltsd.flags import exit_code_of

ATTACKS = {"clean": "clean", "pgd20": "PGD-20", "apgd-t": "APGD-CE+T", "square": "AutoAttack"}
"""Columns of a correctness file; an ensemble is in that of its last member."""


def main() -> int:
    """Print a line for each attack that both sides were examined with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=Path, nargs="+", required=True, metavar="PARQUET", help="a file for each seed")
    parser.add_argument("--theirs", type=Path, nargs="+", required=True, metavar="PARQUET", help="the same seeds")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of either side; it knows the tail classes")
    flags = parser.parse_args()
    ours, theirs = ([read_correctness(path)[0] for path in paths] for paths in (flags.ours, flags.theirs))
    about = load_checkpoint(flags.checkpoint)
    tail = class_groups(about["class_counts"], Config.recorded(about["config"]).data.groups)["tail"]
    lines = [f"{'points':>10} {'all classes':>22} {'tail':>22}"]
    for attack, title in ATTACKS.items():
        if all(attack in seed for seed in (*ours, *theirs)):
            sides = [seed[attack] for seed in ours], [seed[attack] for seed in theirs]
            lines.append(f"{title:>10} {lead(*sides, None):>22} {lead(*sides, tail):>22}")
    print("\n".join(lines))
    return 0


def lead(ours: Sequence[Correctness], theirs: Sequence[Correctness], classes: Sequence[int] | None) -> str:
    """Return the mean difference over classes and its interval as text."""
    found = paired_difference(ours, theirs, classes=classes, seed=0)
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
