"""Edits of texts that mislead a classifier. An attacker can send an edited text, but not a perturbed embedding.

An edit swaps two neighbouring letters, drops, repeats or replaces one, or drops a word. The search is greedy: for each
edit of the budget it draws CANDIDATES random edits and keeps the one that lowers the margin of the true class most
(after Pruthi et al. 2019).
"""

import random
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from ltsd.spelling import edited

CANDIDATES = 48
"""Edits tried for each edit that is kept."""

Margins = Callable[[Sequence[str], Tensor], Tensor]
"""(texts, labels [N]) -> margins [N], see `ltsd.attacks.losses`."""


def greedy_edits(
    margins: Margins, texts: Sequence[str], labels: Tensor, *, budget: int, seed: int
) -> Iterator[list[str]]:
    """Yield texts with up to one edit each, chosen to mislead, then those with up to two, and so on up to `budget`.

    The random edits of a text depend only on the text and the seed.

    Args:
        margins: the model's margins, see `Margins`.
        texts: N texts.
        labels: int64 [N].
        budget: the largest number of edits of a text.
        seed: of the random edits.
    """
    found = list(texts)
    draws = [random.Random(f"{seed} {text}") for text in texts]
    best = margins(found, labels)
    for _ in range(budget):
        left = [place for place, margin in enumerate(best.tolist()) if margin > 0]
        if not left:
            yield list(found)
            continue
        tries = [edited(found[place], draws[place]) for place in left for _ in range(CANDIDATES)]
        reached = margins(tries, labels[left].repeat_interleave(CANDIDATES)).view(len(left), CANDIDATES)
        lowest, which = reached.min(1)
        for row, place in enumerate(left):
            if lowest[row] < best[place]:
                found[place] = tries[row * CANDIDATES + int(which[row])]
                best[place] = lowest[row]
        yield list(found)
