"""Text: one class per text. It is classification with embedded word pieces as inputs; attacks move each vector by a
share of its length.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ltsd.attacks.domains import WORDS
from ltsd.config import ENCODER
from ltsd.data.batches import Split
from ltsd.data.units import ITEMS
from ltsd.tasks import classification

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_TEXTS = 10


def radius(by_class: Tensor, labels: Tensor) -> Tensor:
    """Return [B, 1, 1]: every word piece of a text has the radius of its class."""
    return by_class[labels].view(-1, 1, 1)


def show_attacked(
    model: nn.Module, split: Split, class_names: Sequence[str], *, eps: float, step_size: float, steps: int
) -> "Figure":
    """Draw the first text of each of the first classes; see `ltsd.text_pictures.attacked_texts`."""
    from ltsd.text_pictures import attacked_texts

    return attacked_texts(model, split, class_names, SHOWN_TEXTS, eps=eps, step_size=step_size, steps=steps)


def show_data(split: Split, class_names: Sequence[str]) -> "Figure":
    """Draw a few texts of every class; see `ltsd.text_pictures.text_table`."""
    from ltsd.text_pictures import text_table

    return text_table(split, class_names)


TASK = replace(
    classification.TASK,
    title="text",
    kind="text",
    target="a text",
    counted=ITEMS["text"],
    domain=WORDS,
    networks=("text-cnn", "text-transformer", ENCODER),
    augmentations=("none", "word-dropout", "edits"),
    radius=radius,
    validate=partial(classification.validate, domain=WORDS),
    show_attacked=show_attacked,
    attacked_hint="texts, and what the network answers to them as they are and attacked with PGD-20",
    show_data=show_data,
)
