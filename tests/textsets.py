"""Texts with a class each."""

import csv
import json
from collections.abc import Mapping, Sequence
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


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """A CSV, TSV or JSON lines file of rows that have the same keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(f"{json.dumps(row)}\n" for row in rows)
        else:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path
