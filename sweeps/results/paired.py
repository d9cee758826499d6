"""Leads of rows over a baseline, image by image and seed by seed, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from ltsd.evaluation.exams import Exam
from sweeps.results.finals import Examined, Results
from sweeps.settings.rows import BASELINE, TUNED, title_of

SEED = 0


def baseline(results: Results) -> str:
    """Return the row with which the others are compared: the tuned AT-BSL if there is one, else AT-BSL."""
    tuned = f"{TUNED}{BASELINE}"
    return tuned if tuned in results else BASELINE


def differences(results: Results, exam: Exam, baseline: str) -> list[list[str]]:
    """Return header and rows as text: row minus baseline in points, with its 95% interval from a paired bootstrap.

    Columns for which the baseline was not examined are left out, and so are rows that share no seed with it. Without a
    baseline there is no row.

    Raises:
        UserError: a correctness file is missing or damaged.
    """
    theirs = {run.seed: (run, exam.read(run.correctness)[0]) for run in results.get(baseline, [])}
    rows: list[list[str]] = []
    for row, runs in results.items():
        pairs = [(exam.read(run.correctness)[0], *theirs[run.seed]) for run in runs if run.seed in theirs]
        if row != baseline and pairs:
            rows.append([title_of(row), *(_cell(pairs, exam, *of) for of in exam.leads.values())])
    kept = [0, *(i for i in range(1, len(exam.leads) + 1) if any(row[i] != "–" for row in rows))]
    header = [f"minus {title_of(baseline)}", *exam.leads]
    return [[row[i] for i in kept] for row in [header, *rows]] if rows else []


def _cell(
    pairs: Sequence[tuple[Mapping[str, Any], Examined, Mapping[str, Any]]], exam: Exam, attack: str, group: str
) -> str:
    if not all(attack in ours and attack in theirs for ours, _, theirs in pairs):
        return "–"
    classes = pairs[0][1].exam["groups"][group] if group else None
    found = exam.compare(
        [ours[attack] for ours, _, _ in pairs], [theirs[attack] for _, _, theirs in pairs], classes=classes, seed=SEED
    )
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
