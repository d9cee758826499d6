"""The word pieces and vectors of a trained encoder as a vocabulary, instead of one that is learnt from texts."""

import functools
import json

import torch

from ltsd.data.vocabulary import PADDING, UNKNOWN, Vocabulary
from ltsd.encoders import digest_of, layers_of, pieces_of
from ltsd.errors import UserError


def encoder_vocabulary(folder: str) -> Vocabulary:
    """Return the vocabulary of the encoder in a folder. Its pieces are numbered anew: two change places with the
    padding and the unknown one, which come first here.

    Raises:
        UserError: as `pieces_of` and `layers_of`; it numbers its pieces in a way that is not known here.
        MissingPackageError: transformers is not installed.
    """
    return _vocabulary(folder, digest_of(folder))


@functools.lru_cache(maxsize=1)
def _vocabulary(folder: str, digest: str) -> Vocabulary:
    pieces = pieces_of(folder)
    weight = layers_of(folder).get_input_embeddings().weight.detach()
    order = list(range(len(weight)))
    for place, piece in ((PADDING, pieces.padding), (UNKNOWN, pieces.unknown)):
        other = order.index(piece)
        order[place], order[other] = order[other], order[place]
    vectors = weight[torch.tensor(order)].clone()
    vectors[PADDING] = 0
    return Vocabulary(_renumbered(pieces.tokenizer.to_str(), order, folder), vectors)


def _renumbered(tokenizer: str, order: list[int], folder: str) -> str:
    """Return a tokenizer whose piece `number` is the one that was `order[number]`, which adds nothing to a text."""
    new = {old: number for number, old in enumerate(order)}
    content = json.loads(tokenizer) | {"post_processor": None, "truncation": None, "padding": None}
    model = content["model"]
    known = model.get("vocab")
    if isinstance(known, dict):
        model["vocab"] = {piece: new[old] for piece, old in known.items()}
    elif isinstance(known, list) and max(order[: len(known)]) < len(known):
        model |= {"vocab": [known[old] for old in order[: len(known)]], "unk_id": UNKNOWN}
    else:
        raise UserError(f"{folder}: its tokenizer, {model.get('type')}, is of no kind that is known here; take another")
    content["added_tokens"] = [one | {"id": new[one["id"]]} for one in content["added_tokens"]]
    return json.dumps(content)
