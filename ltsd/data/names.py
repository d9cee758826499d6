"""Class names in their order, and shown: short, on one line, a few of many."""

from collections import Counter
from collections.abc import Collection, Sequence

from rich.cells import cell_len

ELLIPSIS = "…"
JOINERS = "\u200c\u200d"
LISTED_WIDTH = 30
LONGEST_NUMBER = 18


def in_order(labels: Collection[str]) -> list[str]:
    """Return labels by the alphabet, or by size if all are numbers."""
    if all(label.isdecimal() and len(label) <= LONGEST_NUMBER for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def shortened(name: str, width: int) -> str:
    """Return a name on one line, at most `width` terminal cells wide, cut in the middle: names often differ at the end.

    Runs of white space are one space, characters that cannot be printed are `�`; a name of nothing else is `''`.

    Args:
        width: at least 2. A Chinese or Japanese character takes two cells.
    """
    text = " ".join("".join(_printable(character) for character in name).split()) or "''"
    if cell_len(text) <= width:
        return text
    end = _within(text[::-1], (width - 1) // 2)[::-1]
    return _within(text, width - 1 - cell_len(end)) + ELLIPSIS + end


def told_apart(names: Sequence[str], width: int) -> list[str]:
    """Shorten every name; those that would look the same get their index as suffix: `a long…name #17`."""
    shown = [shortened(name, width) for name in names]
    times = Counter(shown)
    numbers = [f" #{number}" if times[text] > 1 else "" for number, text in enumerate(shown)]
    return [shortened(name, width - len(number)) + number for name, number in zip(names, numbers, strict=True)]


def listed(names: Sequence[str], at_most: int = 8) -> str:
    """Return the first `at_most` names, shortened, and the number of the others: `a, b, c, … and 1,195 more`."""
    shown = [shortened(name, LISTED_WIDTH) for name in names[:at_most]]
    more = len(names) - len(shown)
    return ", ".join([*shown, f"{ELLIPSIS} and {more:,} more"] if more else shown)


def padded(text: str, width: int) -> str:
    """Pad a text on the left to `width` terminal cells."""
    return " " * (width - cell_len(text)) + text


def _printable(character: str) -> str:
    if character.isprintable() or character in JOINERS:
        return character
    return " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"


def _within(text: str, width: int) -> str:
    """Return the longest prefix of a text that fits into this many terminal cells."""
    end = min(len(text), width)
    while cell_len(text[:end]) > width:
        end -= 1
    return text[:end]
