"""Which texts a model classifies correctly after edits that are chosen to mislead it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ltsd.answers import is_finite, is_right
from ltsd.attacks.edits import greedy_edits
from ltsd.attacks.losses import margins
from ltsd.data.batches import Split
from ltsd.evaluation.evaluate import CHUNK, Correctness, eval_mode

BUDGETS = {"edit1": 1, "edit2": 2}
"""Edits of a text, by the name of the attack."""


def edit_correctness(model: nn.Module, split: Split, name: str, *, seed: int) -> Correctness:
    """Return the correctness after the greedy edits of BUDGETS[name]; texts are edited as the network reads them: the
    lower-case text of their word pieces.
    """
    vocabulary = split.vocabulary
    assert vocabulary is not None
    length = split.images.shape[1]

    def logits_of(texts: Sequence[str]) -> Tensor:
        numbers = torch.from_numpy(vocabulary.numbers(texts, length)).to(split.rows.device)
        with torch.no_grad():
            return torch.cat([model(split.inputs(chunk)) for chunk in numbers.split(CHUNK)])  # type: ignore[no-untyped-call]

    judged = []
    with eval_mode(model):
        for rows in split.rows.split(CHUNK):  # type: ignore[no-untyped-call]
            texts = [vocabulary.text(numbers) for numbers in split.images[rows].tolist()]
            labels = split.labels[rows]
            found = greedy_edits(
                lambda tries, own: margins(logits_of(tries), own), texts, labels, budget=BUDGETS[name], seed=seed
            )
            logits = logits_of(found)
            judged.append((is_right(logits, labels), is_finite(logits)))
    return Correctness.judged(judged, split)
