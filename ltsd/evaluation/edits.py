"""Correctness of a text classifier after edits that are chosen to mislead it."""

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


def edit_correctness(model: nn.Module, split: Split, *, seed: int) -> dict[str, Correctness]:
    """Return the correctness after greedy edits, by the names of BUDGETS.

    The texts are edited as the network reads them: the lower-case text of their word pieces. `seed` is that of the
    random edits.
    """
    vocabulary = split.vocabulary
    assert vocabulary is not None
    length = split.images.shape[1]

    def logits_of(texts: Sequence[str]) -> Tensor:
        numbers = torch.from_numpy(vocabulary.numbers(texts, length)).to(split.rows.device)
        with torch.no_grad():
            return torch.cat([model(split.inputs(chunk)) for chunk in numbers.split(CHUNK)])  # type: ignore[no-untyped-call]

    judged: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in BUDGETS}
    with eval_mode(model):
        for rows in split.rows.split(CHUNK):  # type: ignore[no-untyped-call]
            texts = [vocabulary.text(numbers) for numbers in split.images[rows].tolist()]
            labels = split.labels[rows]
            steps = greedy_edits(
                lambda tries, own: margins(logits_of(tries), own),
                texts,
                labels,
                budget=max(BUDGETS.values()),
                seed=seed,
            )
            found = {edits: logits_of(edited) for edits, edited in enumerate(steps, start=1)}
            for name, budget in BUDGETS.items():
                judged[name].append((is_right(found[budget], labels), is_finite(found[budget])))
    return {name: Correctness.judged(own, split) for name, own in judged.items()}
