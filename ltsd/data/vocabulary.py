"""The word pieces of a set of texts, and the vectors that stand for them.

Both are made from the training texts and stay as they are: they belong to the data, as pixels do, so that teacher and
student read the same inputs.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltsd.packages import require

PADDING, UNKNOWN = 0, 1
SPECIAL = ("[PAD]", "[UNK]")
DIMENSIONS = 64
WINDOW = 5
"""Word pieces to either side that count as near."""
SEED = 0
INSIDE = "##"
"""Before a piece that does not begin a word."""
LONGEST_ENDING, ENDINGS = 5, 4
"""Letters of an ending; one piece in so many is an ending."""
PACKAGES, EXTRA = ("tokenizers", "scipy"), "text"


@dataclass(frozen=True)
class Vocabulary:
    """`tokenizer` is what `tokenizers` wrote as JSON; `vectors` are float32 [V, D], and that of PADDING 0. Learnt ones
    have DIMENSIONS, and the length 1.
    """

    tokenizer: str
    vectors: Tensor

    @classmethod
    def of(cls, texts: Sequence[str], size: int, length: int) -> Self:
        """Learn up to `size` word pieces of the training texts, and their vectors from the first `length` of each.

        Raises:
            MissingPackageError: tokenizers is not installed.
        """
        require(PACKAGES, EXTRA, "text")
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

        normalizer, words = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
        counts = Counter[str]()
        for text in texts:
            counts.update(word for word, _ in words.pre_tokenize_str(normalizer.normalize_str(text)))
        pieces = {piece: number for number, piece in enumerate(_pieces(counts, size))}
        tokenizer = Tokenizer(models.WordPiece(pieces, unk_token=SPECIAL[UNKNOWN]))
        tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, words, decoders.WordPiece()
        plain = cls(tokenizer.to_str(), torch.empty(0))
        vectors = _vectors(plain.numbers(texts, length), tokenizer.get_vocab_size())
        return replace(plain, vectors=torch.from_numpy(vectors))

    @cached_property
    def _tokenizer(self) -> Any:
        require(PACKAGES, EXTRA, "text")
        from tokenizers import Tokenizer

        return Tokenizer.from_str(self.tokenizer)

    def numbers(self, texts: Iterable[str], length: int) -> NDArray[np.int32]:
        """Return the numbers of the first `length` word pieces of texts, int32 [N, length], with PADDING behind."""
        found = self._tokenizer.encode_batch_fast(list(texts))
        rows = [(one.ids + [PADDING] * length)[:length] for one in found]
        return np.asarray(rows, dtype=np.int32).reshape(-1, length)

    def longer_than(self, text: str, length: int) -> bool:
        """Return whether a text has more word pieces than that."""
        return len(self._tokenizer.encode(text).ids) > length

    def text(self, numbers: Sequence[int]) -> str:
        """Return the text of word pieces, as a network reads it, without those that it does not know."""
        text: str = self._tokenizer.decode([number for number in numbers if number > UNKNOWN])
        return text

    def to(self, device: torch.device) -> Self:
        """Return it with its vectors on a device."""
        return replace(self, vectors=self.vectors.to(device))


def _pieces(counts: Mapping[str, int], size: int) -> list[str]:
    """Return word pieces: every letter, at the beginning of a word and within it, and the most frequent words and
    endings.

    The trainers of `tokenizers` break ties at random, and their vocabularies differ from run to run.
    """
    letters = sorted({letter for word in counts for letter in word})
    endings = Counter[str]()
    for word, count in counts.items():
        for length in range(2, min(LONGEST_ENDING, len(word) - 1) + 1):
            endings[INSIDE + word[-length:]] += count
    found = [*SPECIAL, *letters, *(INSIDE + letter for letter in letters)]
    room = max(0, size - len(found))
    found += [word for word in _by_count(counts) if len(word) > 1][: room - room // ENDINGS]
    return found + _by_count(endings)[: max(0, size - len(found))]


def _by_count(counts: Mapping[str, int]) -> list[str]:
    return sorted(counts, key=lambda piece: (-counts[piece], piece))


def _vectors(numbers: NDArray[np.int32], size: int) -> NDArray[np.float32]:
    """Return vectors whose products are near the positive pointwise mutual information of word pieces (Levy & Goldberg
    2014), scaled to length 1; one that has none gets a vector at random.
    """
    from scipy.sparse import coo_matrix
    from sklearn.utils.extmath import randomized_svd

    pairs = [
        numbers[:, [place, place + apart]]
        for apart in range(1, WINDOW + 1)
        for place in range(numbers.shape[1] - apart)
    ]
    near = np.concatenate(pairs)
    near = near[(near > UNKNOWN).all(1)]
    near = np.concatenate([near, near[:, ::-1]])
    counts = coo_matrix((np.ones(len(near)), (near[:, 0], near[:, 1])), shape=(size, size)).tocsr().tocoo()
    of_piece = np.asarray(counts.sum(1)).ravel()
    information = np.log(counts.data * of_piece.sum() / (of_piece[counts.row] * of_piece[counts.col]))
    positive = coo_matrix((np.maximum(information, 0), (counts.row, counts.col)), shape=counts.shape).tocsr()
    left, strength, _ = randomized_svd(positive, min(DIMENSIONS, size - 1), random_state=SEED)
    vectors = np.random.RandomState(SEED).randn(size, DIMENSIONS)
    found = left * np.sqrt(strength)
    has = np.linalg.norm(found, axis=1) > 1e-6
    vectors[has] = 0
    vectors[has, : found.shape[1]] = found[has]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[PADDING] = 0
    return vectors.astype(np.float32)
