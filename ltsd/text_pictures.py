"""Pictures of texts: a few of every class, and what a network answers to them, clean and attacked."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import nn

from ltsd.answers import is_right
from ltsd.attacks.domains import WORDS
from ltsd.data.batches import Split
from ltsd.data.names import shortened
from ltsd.pictures import BESIDE_IMAGES, DPI, attacked_answers, drawable

SHOWN_CLASSES = 24
WIDEST = 90
"""Characters of a text."""
RIGHT, WRONG = "#1a7f37", "#cf222e"


def text_table(split: Split, class_names: Sequence[str]) -> Figure:
    """Draw the first text of the classes; of many, of the most frequent and the rarest."""
    counts = split.class_counts()
    order = sorted(range(len(counts)), key=lambda c: -counts[c])
    shown = order if len(order) <= SHOWN_CLASSES else [*order[: SHOWN_CLASSES // 2], *order[-SHOWN_CLASSES // 2 :]]
    labels, names = split.labels[split.rows], drawable(class_names, BESIDE_IMAGES)
    lines = []
    for c in shown:
        (first, *_) = (labels == c).nonzero()[:1, 0].tolist()
        lines.append([(f"{names[c]} ({counts[c]:,})", "black"), (_text(split, first), "black")])
    return _drawn(lines, (0.0, 0.28))


def attacked_texts(
    model: nn.Module, split: Split, class_names: Sequence[str], count: int, *, eps: float, step_size: float, steps: int
) -> Figure:
    """Draw a line for the first text of each of the first classes: the text, and the answers to it, clean and under
    PGD: a class, green if right and red if not.
    """
    labels = split.labels[split.rows]
    positions = torch.stack([(labels == c).nonzero()[0, 0] for c in range(min(count, split.num_classes))])
    inputs, own = split.take(positions)
    _, answers = attacked_answers(model, inputs, own, domain=WORDS, eps=eps, step_size=step_size, steps=steps)
    names = drawable(class_names, BESIDE_IMAGES)
    lines = []
    for place, position in enumerate(positions.tolist()):
        line = [(_text(split, position), "black")]
        for logits in answers:
            right = bool(is_right(logits[place : place + 1], own[place : place + 1]))
            line.append((names[int(logits[place].argmax())], RIGHT if right else WRONG))
        lines.append(line)
    return _drawn([[("text", "grey"), ("clean", "grey"), (f"PGD-{steps}", "grey")], *lines], (0.0, 0.6, 0.8))


def _text(split: Split, position: int) -> str:
    assert split.vocabulary is not None
    return shortened(split.vocabulary.text(split.images[split.rows[position]].tolist()), WIDEST)


def _drawn(lines: Sequence[Sequence[tuple[str, str]]], columns: Sequence[float]) -> Figure:
    """Draw lines of words in colours, each beginning at its column."""
    figure = Figure(figsize=(11, 0.26 * len(lines) + 0.2), dpi=DPI)
    for row, line in enumerate(lines):
        for left, (words, colour) in zip(columns, line, strict=True):
            height = 1 - (row + 0.6) / (len(lines) + 0.6)
            figure.text(0.01 + left, height, words, color=colour, fontsize="small", va="center", parse_math=False)
    return figure
