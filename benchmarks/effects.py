"""What matters of a configuration, and do runs with fewer attack steps rank configurations as those with all do?

    python benchmarks/effects.py                   # reads the table of tabular.py; seconds

The runs with fewer steps are made by `python benchmarks/tabular.py --steps 4 --configurations 60 --seeds 1`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from machine import RESULTS
from replays.table import Array, encoded, unpacked, weights
from replays.wide import SPACE
from scipy.stats import spearmanr
from tabular import BASE, TRUTH

from ltsd.data import Splits, load_splits
from ltsd.data.longtail import class_groups
from ltsd.files import publishing

DIVERGED = 0.62
"""Runs below it under the attack are left out: they say where training fails, not what it gains."""
Row = Mapping[str, Any]


def accuracies(rows: Sequence[Row], splits: Splits) -> Array:
    """Accuracy [N, 3] on the test set, in points: under the attack of all classes and of the tail, and clean."""
    labels = splits.test.take(torch.arange(len(splits.test)))[1].numpy()
    counts = splits.train.class_counts()
    everyone, tail = range(len(counts)), class_groups(counts)["tail"]
    columns = ((f"test/{TRUTH}", everyone), (f"test/{TRUTH}", tail), ("test/clean", everyone))
    found = [unpacked([row[name] for row in rows], len(labels)) @ weights(labels, of) for name, of in columns]
    return 100 * np.stack(found, 1)


def slopes(points: Array, scores: Array) -> tuple[Array, Array]:
    """Of a linear regression with a constant: slopes [D, S] over the whole of a range, and standard errors."""
    inputs = np.concatenate([points, np.ones((len(points), 1))], 1)
    found = np.linalg.lstsq(inputs, scores, rcond=None)[0]
    left = ((scores - inputs @ found) ** 2).sum(0) / (len(inputs) - inputs.shape[1])
    errors = np.sqrt(np.diag(np.linalg.inv(inputs.T @ inputs))[:, None] * left)
    return found[:-1], errors[:-1]


def effects(rows: Sequence[Row], scores: Array) -> str:
    """A row a knob: what its whole range is worth, from the low end to the high one, in Markdown."""
    found, errors = slopes(np.array([encoded(row, SPACE) for row in rows]), scores)
    lines = ["| knob | all classes | tail | clean |", "|---|---|---|---|"]
    for name, values, of in zip(SPACE, found, errors, strict=True):
        cells = (f"{value:+.1f} ± {error:.1f}" for value, error in zip(values, of, strict=True))
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def fidelity(whole: Sequence[Row], short: Sequence[Row], splits: Splits) -> str:
    """How the validation scores of two trainings of the same configurations rank them, in Markdown."""
    by_number = {row["configuration"]: row for row in whole}
    both = [(by_number[row["configuration"]], row) for row in short if row["configuration"] in by_number]
    truths, others = (accuracies([pair[k] for pair in both], splits) for k in (0, 1))
    kept = (truths[:, 0] > 100 * DIVERGED) & (others[:, 0] > 100 * DIVERGED)
    lines = ["| | all classes | tail |", "|---|---|---|"]
    for k, name in enumerate((f"validation, {BASE.attack.steps} steps", f"validation, {short[0]['steps']} steps")):
        columns = [[pair[k][f"val/{of}"][-1] for pair in both] for of in ("robust_acc", "tail_robust_acc")]
        cells = [spearmanr(np.array(of)[kept], truths[kept, i]).statistic for i, of in enumerate(columns)]
        lines.append(f"| {name} | {' | '.join(f'{rho:.2f}' for rho in cells)} |")
    lost = (others - truths)[kept, :2].mean(0)
    lines.append(f"| test, fewer steps minus all, points | {lost[0]:+.1f} | {lost[1]:+.1f} |")
    return f"{kept.sum()} configurations.\n\n" + "\n".join(lines)


def main() -> None:
    """Write the report."""
    rows: list[Row] = pq.read_table(RESULTS / "tabular.parquet").to_pylist()
    splits = load_splits(BASE.data)
    whole, short = ([row for row in rows if (row["steps"] == BASE.attack.steps) == full] for full in (True, False))
    scores = accuracies(whole, splits)
    kept = scores[:, 0] > 100 * DIVERGED
    decay = [row["optim.weight_decay"] for row, good in zip(whole, kept, strict=True) if not good]
    text = f"""# What matters, and what fewer attack steps tell

LTSD on the digits, random configurations of all groups; test accuracy under {TRUTH}. Made by \
`python benchmarks/effects.py` from tabular.parquet.

## What a knob is worth

A linear regression on the {kept.sum()} of {len(whole)} runs whose accuracy is above {100 * DIVERGED:.0f}%: points \
from the low end of a knob's range to the high one, with the standard error. Ranges are on the scale on which they \
are searched; of a choice the place among the values counts. Of the {len(decay)} other runs \
{sum(value < BASE.optim.weight_decay for value in decay)} have a weight decay below the default.

{effects([row for row, good in zip(whole, kept, strict=True) if good], scores[kept])}

## Runs with {short[0]["steps"]} attack steps in training

Spearman's correlation of a run's validation score (250 images) with the test accuracy of the same configuration \
trained with {BASE.attack.steps} steps. {fidelity([row for row in whole if row["seed"] == 0], short, splits)}
"""
    with publishing(RESULTS / "effects.md") as temporary:
        temporary.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
