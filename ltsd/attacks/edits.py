"""Edits of texts that mislead a classifier: what somebody can send, while nobody can send a vector.

An edit swaps two neighbouring letters, drops, repeats or replaces one, or drops a word. Within a budget of edits, the
search is greedy: of many edits at random, the one that lowers the margin of the right class most is kept (after Pruthi
et al. 2019).
"""

import random
from collections.abc import Callable, Sequence

from torch import Tensor

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CANDIDATES = 48
"""Edits that are tried for each one that is kept."""

Margins = Callable[[Sequence[str], Tensor], Tensor]
"""(texts, labels [N]) -> margins [N], see `ltsd.attacks.losses`."""


def edited(text: str, draws: random.Random) -> str:
    """Return a text with one edit at random; one of a single letter as it is."""
    words = text.split()
    kind = draws.choice(("swap", "drop", "repeat", "replace", "word"))
    if kind == "word" and len(words) > 1:
        del words[draws.randrange(len(words))]
        return " ".join(words)
    places = [place for place, letter in enumerate(text) if letter.isalnum()]
    if len(places) < 2:
        return text
    at = draws.choice(places)
    if kind == "swap" and at + 1 < len(text):
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if kind == "repeat":
        return text[:at] + text[at] + text[at:]
    if kind == "replace":
        return text[:at] + draws.choice(LETTERS) + text[at + 1 :]
    return text[:at] + text[at + 1 :]


def greedy_edits(margins: Margins, texts: Sequence[str], labels: Tensor, *, budget: int, seed: int) -> list[str]:
    """Return texts with up to `budget` edits each, chosen to mislead.

    The draws for a text depend on it and the seed alone: a larger budget goes on where a smaller one ended.

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
            break
        tries = [edited(found[place], draws[place]) for place in left for _ in range(CANDIDATES)]
        reached = margins(tries, labels[left].repeat_interleave(CANDIDATES)).view(len(left), CANDIDATES)
        lowest, which = reached.min(1)
        for row, place in enumerate(left):
            if lowest[row] < best[place]:
                found[place] = tries[row * CANDIDATES + int(which[row])]
                best[place] = lowest[row]
    return found
