"""Texts with a class each."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from imagesets import REAL_DATA

BANKING = REAL_DATA / "banking77"
WORDS = {
    "card": ("card", "pin", "chip", "plastic"),
    "cash": ("cash", "notes", "machine", "coins"),
    "loan": ("loan", "interest", "house", "credit"),
    "rate": ("exchange", "euro", "dollar", "foreign"),
}
"""Words of a class."""
COMMON = ("please", "where", "is", "my", "the", "today", "help", "with", "lost", "new")


def texts_of(label: int, count: int) -> list[str]:
    """Sentences of common words and two or three of a class."""
    draws, own = np.random.RandomState(label), list(WORDS.values())[label]
    found = []
    for _ in range(count):
        words = [*draws.choice(COMMON, 4), *draws.choice(own, draws.randint(2, 4))]
        draws.shuffle(words)
        found.append(" ".join(words) + draws.choice(["", "?", "!"]))
    return found


def write_texts(path: Path, counts: tuple[int, ...]) -> Path:
    """A Parquet file of so many texts a class."""
    texts = [text for label, count in enumerate(counts) for text in texts_of(label, count)]
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    pq.write_table(pa.table({"text": texts, "label": labels}), path)
    return path
