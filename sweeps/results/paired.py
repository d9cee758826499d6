"""Leads of rows over a baseline, image by image and seed by seed, with intervals."""

from collections.abc import Sequence

from ltsd.evaluation.comparison import paired_difference
from ltsd.evaluation.correctness import read_correctness
from ltsd.evaluation.evaluate import Correctness
from sweeps.results.finals import Examined, Results
from sweeps.settings.rows import BASELINE, TUNED, title_of

COLUMNS = {
    "clean": ("clean", ""),
    "tail clean": ("clean", "tail"),
    "PGD-20": ("pgd20", ""),
    "tail PGD-20": ("pgd20", "tail"),
    "AutoAttack": ("square", ""),
    "tail AA": ("square", "tail"),
}
"""By column: the attack in the correctness file (`square` ends AutoAttack), and the group of classes."""
SEED = 0


def baseline(results: Results) -> str:
    """Return the row over which leads are told: the tuned AT-BSL if there is one, else AT-BSL."""
    tuned = f"{TUNED}{BASELINE}"
    return tuned if tuned in results else BASELINE


def differences(results: Results, baseline: str) -> list[list[str]]:
    """Return header and rows as text: row minus baseline in points, with its 95% interval from a paired bootstrap.

    Columns for which the baseline was not examined are left out, and so are rows that share no seed with it. Without a
    baseline there is no row.

    Raises:
        UserError: a correctness file is missing or damaged.
    """
    theirs = {run.seed: (run, read_correctness(run.correctness)[0]) for run in results.get(baseline, [])}
    rows: list[list[str]] = []
    for row, runs in results.items():
        pairs = [(read_correctness(run.correctness)[0], *theirs[run.seed]) for run in runs if run.seed in theirs]
        if row != baseline and pairs:
            rows.append([title_of(row), *(_cell(pairs, *of) for of in COLUMNS.values())])
    kept = [0, *(i for i in range(1, len(COLUMNS) + 1) if any(row[i] != "–" for row in rows))]
    header = [f"minus {title_of(baseline)}", *COLUMNS]
    return [[row[i] for i in kept] for row in [header, *rows]] if rows else []


def _cell(
    pairs: Sequence[tuple[dict[str, Correctness], Examined, dict[str, Correctness]]], attack: str, group: str
) -> str:
    if not all(attack in ours and attack in theirs for ours, _, theirs in pairs):
        return "–"
    classes = pairs[0][1].exam["groups"][group] if group else None
    found = paired_difference(
        [ours[attack] for ours, _, _ in pairs], [theirs[attack] for _, _, theirs in pairs], classes=classes, seed=SEED
    )
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
