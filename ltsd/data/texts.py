"""Texts as numbers of word pieces; errors name the text by its place."""

import base64
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ltsd.data.decode import Encoded
from ltsd.data.decoding import Decoded
from ltsd.data.vocabulary import DIMENSIONS, PADDING, UNKNOWN, Vocabulary
from ltsd.errors import UserError

TOKENIZER, VECTORS = "tokenizer", "vectors"
"""What the file of training texts has beside them."""


Text = tuple[str, str, int]
"""The place, the text and its class."""


def read_texts(rows: Mapping[str, Encoded], source: str) -> dict[str, list[Text]]:
    """Read texts by role.

    Args:
        rows: UTF-8 texts, all with a class, by role; `train` is one.
        source: what messages call the whole.

    Raises:
        UserError: a text that is empty or not UTF-8; none at all; labels other than classes.
    """
    read = {role: _read(of_role) for role, of_role in rows.items()}
    if not read["train"]:
        raise UserError(f"--data.source {source}: holds no texts")
    return read


def number_texts(
    read: Mapping[str, Sequence[Text]], *, pieces: int, length: int
) -> tuple[dict[str, Decoded], Vocabulary, list[str]]:
    """Learn the vocabulary from the training texts, and return the numbers of word pieces.

    Args:
        read: texts by role; `train` is one.
        pieces: the most word pieces of the vocabulary.
        length: word pieces of a text.

    Returns:
        By role int32 [N, length]; the vocabulary; remarks on what had to be changed.

    Raises:
        UserError: a text of unknown word pieces alone.
        MissingPackageError: tokenizers is not installed.
    """
    vocabulary = Vocabulary.of([text for _, text, _ in read["train"]], pieces, length)
    parts, notes = dict[str, Decoded](), list[str]()
    for role, found in read.items():
        numbers = numbered([(place, text) for place, text, _ in found], vocabulary, length)
        full = [text for (_, text, _), row in zip(found, numbers, strict=True) if row[-1] != PADDING]
        cut = sum(vocabulary.longer_than(text, length) for text in full)
        if cut:
            notes.append(f"{role}: {cut:,} of {len(found):,} texts were cut to {length} word pieces (--data.tokens)")
        parts[role] = Decoded(numbers, np.asarray([label for *_, label in found], dtype=np.int64), 0)
    return parts, vocabulary, notes


def numbered(texts: Sequence[tuple[str, str]], vocabulary: Vocabulary, length: int) -> NDArray[np.int32]:
    """Return the numbers of the first word pieces of texts, (place, text) each, as int32 [N, length].

    Raises:
        UserError: no word of a text is known.
    """
    numbers = vocabulary.numbers((text for _, text in texts), length)
    for (place, text), row in zip(texts, numbers, strict=True):
        if not (row > UNKNOWN).any():
            raise UserError(f"{place}: none of its words is known from the training texts: {text[:40]!r}")
    return numbers


def decoded(encoded: bytes, place: str) -> str:
    """Return a text of UTF-8.

    Raises:
        UserError: it is not UTF-8, or empty.
    """
    try:
        text = encoded.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: is not UTF-8 text ({error.reason}); write it as UTF-8") from error
    if not text.strip():
        raise UserError(f"{place}: an empty text; take it away")
    return text


def _read(rows: Encoded) -> list[Text]:
    found = []
    for place, encoded, label in rows:
        if not isinstance(label, int):
            raise UserError(f"{place}: a text has a class, and no masks or boxes")
        found.append((place, decoded(encoded, place), label))
    return found


def written(vocabulary: Vocabulary) -> dict[str, str]:
    """Return a vocabulary as strings."""
    vectors = vocabulary.vectors.cpu().numpy()
    return {TOKENIZER: vocabulary.tokenizer, VECTORS: base64.b85encode(vectors.tobytes()).decode()}


def vocabulary_in(about: Mapping[str, str]) -> Vocabulary | None:
    """Return the vocabulary that `written` wrote; None if there is none."""
    if TOKENIZER not in about:
        return None
    content = np.frombuffer(base64.b85decode(about[VECTORS]), dtype=np.float32)
    return Vocabulary(about[TOKENIZER], torch.from_numpy(content.reshape(-1, DIMENSIONS).copy()))
