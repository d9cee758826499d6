"""Texts as numbers of word pieces; errors name the text by its place."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ltsd.data.decode import Encoded
from ltsd.data.decoding import Decoded
from ltsd.data.encoder_vocabulary import encoder_vocabulary
from ltsd.data.vocabulary import DIMENSIONS, PADDING, UNKNOWN, Vocabulary
from ltsd.encoders import digest_of
from ltsd.errors import UserError

TOKENIZER, VECTORS = "tokenizer", "vectors"
"""What the file of training texts has beside them, of a vocabulary that was learnt from them."""
ENCODER, DIGEST = "encoder", "digest"
"""The same, of one that was read: its vectors alone may be larger than all texts."""


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


def vocabulary_for(
    texts: Sequence[Text], *, encoder: str | None, pieces: int, length: int
) -> tuple[Vocabulary, dict[str, str]]:
    """Read the vocabulary of an encoder, or learn it from the training texts.

    Args:
        texts: those of the training.
        encoder: its folder; None to learn.
        pieces: the most word pieces that are learnt.
        length: word pieces of a text.

    Returns:
        The vocabulary, and strings from which `vocabulary_in` finds it again.

    Raises:
        UserError: as `encoder_vocabulary`.
        MissingPackageError: tokenizers, or transformers, is not installed.
    """
    if encoder is not None:
        return encoder_vocabulary(encoder), {ENCODER: str(Path(encoder).absolute()), DIGEST: digest_of(encoder)}
    learnt = Vocabulary.of([text for _, text, _ in texts], pieces, length)
    vectors = base64.b85encode(learnt.vectors.numpy().tobytes()).decode()
    return learnt, {TOKENIZER: learnt.tokenizer, VECTORS: vectors}


def vocabulary_in(about: Mapping[str, str]) -> Vocabulary | None:
    """Return the vocabulary of `vocabulary_for`; None if there is none.

    Raises:
        UserError: its encoder is not there any more, or another one is.
    """
    if ENCODER in about:
        if digest_of(about[ENCODER]) != about[DIGEST]:
            raise UserError(
                f"{about[ENCODER]}: is not the encoder with which the texts were read; bring it back to that folder, "
                f"or start anew"
            )
        return encoder_vocabulary(about[ENCODER])
    if TOKENIZER not in about:
        return None
    content = np.frombuffer(base64.b85decode(about[VECTORS]), dtype=np.float32)
    return Vocabulary(about[TOKENIZER], torch.from_numpy(content.reshape(-1, DIMENSIONS).copy()))


def number_texts(
    read: Mapping[str, Sequence[Text]], vocabulary: Vocabulary, length: int
) -> tuple[dict[str, Decoded], list[str]]:
    """Return the numbers of word pieces.

    Args:
        read: texts by role.
        vocabulary: of the texts.
        length: word pieces of a text.

    Returns:
        By role int32 [N, length]; remarks on what had to be changed.

    Raises:
        UserError: a text of unknown word pieces alone.
    """
    parts, notes = dict[str, Decoded](), list[str]()
    for role, found in read.items():
        numbers = numbered([(place, text) for place, text, _ in found], vocabulary, length)
        full = [text for (_, text, _), row in zip(found, numbers, strict=True) if row[-1] != PADDING]
        cut = sum(vocabulary.longer_than(text, length) for text in full)
        if cut:
            notes.append(f"{role}: {cut:,} of {len(found):,} texts were cut to {length} word pieces (--data.tokens)")
        parts[role] = Decoded(numbers, np.asarray([label for *_, label in found], dtype=np.int64), 0)
    return parts, notes


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
