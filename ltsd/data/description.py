"""Description of data before training: what was read, how it is split, the classes."""

from collections.abc import Iterator, Sequence

from ltsd.config import DataConfig
from ltsd.data import Splits
from ltsd.data.longtail import class_groups
from ltsd.data.names import padded, shortened, told_apart
from ltsd.data.units import ITEMS, kind_of, unit_of

NAMED_A_GROUP = 5
NAME_WIDTH = 20
ROWS = 60
COARSE = 10
COUNTED = {"pixel": "labelled pixels", "box": "locations that answer for a box"}


def introduction(splits: Splits, data: DataConfig) -> Iterator[str]:
    """Yield lines that tell where the images come from and how they are used."""
    counts = splits.complete.class_counts()
    how = f"drawn with {data.tail} tail at" if splits.simulated else "naturally at"
    unit = unit_of(splits.complete.labels)
    items = ITEMS[kind_of(splits.complete.images)]
    share = f"{data.test_fraction:.3g} of {'every class' if unit == 'image' else 'the images'}"
    test_from = share if splits.reading.is_test_held_out else "the data's own"
    yield from splits.reading.lines(items)
    of = f" with {sum(counts):,} {COUNTED[unit]}" if unit in COUNTED else ""
    yield (
        f"data: {len(splits.complete):,} training {items}{of}, {max(counts)}…{min(counts)} a class, {how} imbalance "
        f"ratio {splits.imbalance_ratio:.4g}"
    )
    yield f"data: {len(splits.val):,} for validation, {splits.val_from}; {len(splits.test):,} for the test, {test_from}"
    if splits.finalists:
        yield f"data: final runs train on {splits.finalists} (--data.finalists)"
    rarest = min(splits.val.class_counts())
    if not splits.simulated and rarest < COARSE:
        yield f"data: validation has {rarest} of its rarest class; its score is that coarse"
    yield "data: " + "; ".join(
        f"{group}: {_with_counts(members, splits.class_names, counts)}"
        for group, members in class_groups(counts, data.groups).items()
    )
    yield from (f"data: {count:,} {what}" for what, count in splits.copies.items())


def class_rows(splits: Splits, data: DataConfig) -> Iterator[str]:
    """Return a table of the classes by descending training count; of many, the most frequent and the rarest."""
    counts = splits.complete.class_counts()
    columns = (counts, splits.val.class_counts(), splits.test.class_counts())
    group_of = {c: name for name, members in class_groups(counts, data.groups).items() for c in members}
    order = sorted(range(len(counts)), key=lambda c: -counts[c])
    names, left_out = told_apart(splits.class_names, NAME_WIDTH), len(order) - ROWS
    yield f"{'class':>{NAME_WIDTH}} {'train':>7} {'val':>7} {'test':>7}  group"
    for place, c in enumerate(order):
        if left_out > 0 and ROWS // 2 <= place < ROWS // 2 + left_out:
            if place == ROWS // 2:
                yield f"{'…':>{NAME_WIDTH}} {left_out:,} classes between"
            continue
        numbers = " ".join(f"{column[c]:>7}" for column in columns)
        yield f"{padded(names[c], NAME_WIDTH)} {numbers}  {group_of[c]}"


def _with_counts(members: Sequence[int], names: Sequence[str], counts: Sequence[int]) -> str:
    shown = [f"{shortened(names[c], NAME_WIDTH)} ({counts[c]})" for c in members[:NAMED_A_GROUP]]
    more = len(members) - len(shown)
    return ", ".join([*shown, f"… and {more:,} more"] if more else shown)
