"""The result of an exam as a table for a terminal."""

from collections.abc import Sequence

from rich.cells import cell_len

from ltsd.data.names import padded, told_apart
from ltsd.evaluation.exam import TITLES
from ltsd.evaluation.exams import Examined

LISTED = 100
WORST = 10
DECISIVE = "pgd20"
NARROWEST, WIDEST = 14, 32


def class_table(
    result: Examined,
    class_counts: Sequence[int],
    class_names: Sequence[str],
    score: str = "accuracies",
    items: str = "images",
) -> str:
    """Return a table of the scores of every class, of head, medium and tail, and of their mean, in percent.

    With more than LISTED classes, it shows only the WORST of them under PGD-20, and the number of classes without any
    correct image.
    """
    accuracies, num_classes = result.accuracies, len(class_names)
    is_long = num_classes > LISTED
    classes = _worst(result, class_counts) if is_long else range(num_classes)
    names = told_apart(class_names, WIDEST)
    width = max(NARROWEST, *(cell_len(names[c]) for c in classes))
    group_of = {c: name for name, members in accuracies["clean"].groups.items() for c in members}
    lines = [f"{'class':>{width}} {'train':>7} {'group':>7} " + " ".join(f"{attack:>10}" for attack in accuracies)]
    for c in classes:
        recalls = [accuracy.per_class[c] for accuracy in accuracies.values()]
        lines.append(f"{padded(names[c], width)} {class_counts[c]:>7} {group_of[c]:>7} " + _percent(recalls))
    if is_long:
        title = f"the {WORST} worst of {num_classes:,} classes under {TITLES[DECISIVE]}; --json FILE has all of them"
        lost = (sum(not recall for recall in accuracy.per_class) for accuracy in accuracies.values())
        lines = [title, *lines, f"{'classes at 0.0':>{width + 16}} " + " ".join(f"{count:>10}" for count in lost)]
    means = {group: [one.group(group) for one in accuracies.values()] for group in accuracies["clean"].groups}
    means["balanced"] = [accuracy.balanced for accuracy in accuracies.values()]
    lines += [f"{name:>{width + 16}} " + _percent(values) for name, values in means.items()]
    return "\n".join(lines) + f"\n{result.images} test {items}; {score} in percent, means over classes"


def _worst(result: Examined, class_counts: Sequence[int]) -> list[int]:
    robust, clean = result.accuracies[DECISIVE].per_class, result.accuracies["clean"].per_class
    return sorted(range(len(class_counts)), key=lambda c: (robust[c], clean[c], class_counts[c]))[:WORST]


def _percent(values: Sequence[float]) -> str:
    return " ".join(f"{100 * value:>10.1f}" for value in values)
