"""Augmentation of texts: misspelt, shortened, with word pieces that are unknown."""

import random

import torch
from torch import Tensor

from ltsd.data.vocabulary import PADDING, UNKNOWN, Vocabulary
from ltsd.spelling import edited

DROPPED = 0.1
"""The probability that a word piece is unknown."""
EDITED = 0.5
"""The probability that a text has an edit, and after each edit that it has one more."""


def word_dropout(texts: Tensor, generator: torch.Generator) -> Tensor:
    """Replace each word piece of texts int32 [B, L] by the unknown one with a probability of DROPPED; padding stays."""
    draws = torch.rand(texts.shape, generator=generator, device=texts.device)
    return texts.masked_fill((draws < DROPPED) & (texts != PADDING), UNKNOWN)


def with_edits(texts: Tensor, vocabulary: Vocabulary, generator: torch.Generator) -> Tensor:
    """Edit half of the texts at random, half of these once more, and so on.

    Args:
        texts: numbers of word pieces, int32 [B, L]; a text is edited as the network reads it, without pieces that it
            does not know.
        vocabulary: of the texts.
        generator: gives one seed, for all draws of the batch.

    Returns:
        int32 [B, L].
    """
    draws = random.Random(int(torch.randint(2**62, (), generator=generator, device=texts.device)))
    rows = texts.tolist()
    chosen = {}
    for number, row in enumerate(rows):
        text = None
        while draws.random() < EDITED:
            text = edited(vocabulary.text(row) if text is None else text, draws)
        if text is not None and text.strip():
            chosen[number] = text
    if not chosen:
        return texts
    numbers = torch.from_numpy(vocabulary.numbers(chosen.values(), texts.shape[1])).to(texts.device)
    places = torch.tensor(list(chosen), device=texts.device)
    return texts.index_copy(0, places, numbers)
