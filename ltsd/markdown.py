"""Markdown: tables, lists, percentages with their spread, text that is no markup, a text cut to a limit."""

import re
import statistics
from collections.abc import Iterable, Sequence
from itertools import accumulate

SPECIAL = re.compile(r"([\\`*_|<>\[\]])")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Format a table with aligned columns; the first row is its head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and standard deviation; no deviation for one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def percent(mean: float, deviation: float | None = None) -> str:
    """Format fractions in [0, 1] in percent: `96.0`, or `96.0 ± 0.3` with a standard deviation."""
    return f"{100 * mean:.1f}" if deviation is None else f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def listed(lines: Iterable[str]) -> str:
    """Format a list, an entry a line."""
    return "".join(f"- {line}\n" for line in lines)


def escaped(text: str) -> str:
    """Return a text of one line whose characters all stand for themselves, also in a table."""
    return SPECIAL.sub(r"\\\1", text)


def within(text: str, limit: int, rest: str) -> str:
    """Return the text if it has at most `limit` characters; else its first paragraphs that fit, whole, and `rest`.

    A heading is not left without the paragraph below it.
    """
    paragraphs = text.strip().split("\n\n")
    ends = [end - 1 for end in accumulate(len(paragraph) + 2 for paragraph in paragraphs)]
    if ends[-1] <= limit:
        return text.strip() + "\n"
    kept = paragraphs[: sum(end <= limit - len(rest) for end in ends)]
    while kept and kept[-1].startswith("#"):
        kept.pop()
    return "\n\n".join(kept) + "\n" + rest
