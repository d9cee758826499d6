"""Edits of texts that mislead a classifier: what somebody can send, while nobody can send a vector.

An edit swaps two neighbouring letters, drops, repeats or replaces one, or drops a word. Within a budget of edits, the
search is greedy: of many edits at random, the one that lowers the margin of the right class most is kept (after Pruthi
et al. 2019).
"""

import random
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from ltsd.spelling import edited

CANDIDATES = 48
"""Edits that are tried for each one that is kept."""

Margins = Callable[[Sequence[str], Tensor], Tensor]
"""(texts, labels [N]) -> margins [N], see `ltsd.attacks.losses`."""


def greedy_edits(
    margins: Margins, texts: Sequence[str], labels: Tensor, *, budget: int, seed: int
) -> Iterator[list[str]]:
    """Yield texts with up to one edit each, chosen to mislead, then those with up to two, and so on up to `budget`.

    The draws for a text depend on it and the seed alone.

    Args:
        margins: of the model.
        texts: N of them.
        labels: int64 [N].
        budget: edits of a text.
        seed: of the candidates.
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
