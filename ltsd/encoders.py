"""Text encoders that Hugging Face's transformers keeps in a folder: word pieces, their vectors, and layers."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ltsd.errors import UserError
from ltsd.packages import require

PACKAGES, EXTRA = ("transformers",), "transformers"
SUFFIXES = frozenset((".json", ".safetensors", ".bin", ".txt", ".model"))
"""Of files that say what an encoder is."""
OF_TOKENIZERS = ("tokenizer.json", "vocab.*", "*.model")
"""Files of which a tokenizer has one."""
REMEDY = "give the folder in which transformers keeps an encoder: config.json, tokenizer.json and model.safetensors"


@dataclass(frozen=True)
class Pieces:
    """The word pieces of an encoder. `tokenizer` is one of `tokenizers`; the others are numbers of pieces: the padding,
    the unknown one, and those that come before and after every text.
    """

    tokenizer: Any
    padding: int
    unknown: int
    before: Sequence[int]
    after: Sequence[int]


def pieces_of(folder: str) -> Pieces:
    """Return the word pieces of the encoder in a folder.

    Raises:
        UserError: there is none that can be read, or it lacks a piece for padding or unknown words.
        MissingPackageError: transformers is not installed.
    """
    found = _read(folder, "AutoTokenizer")
    has_files = any(file for pattern in OF_TOKENIZERS for file in Path(folder).glob(pattern))
    if not has_files or not hasattr(found, "backend_tokenizer"):  # without files transformers makes an empty one
        raise UserError(f"{folder}: holds no tokenizer of the library tokenizers; {REMEDY}")
    if found.pad_token_id is None or found.unk_token_id is None:
        raise UserError(f"{folder}: its tokenizer has no piece for padding, or none for unknown words; take another")
    marks = found.backend_tokenizer.encode("a").special_tokens_mask
    ids = found.backend_tokenizer.encode("a").ids
    first, last = marks.index(0), len(marks) - marks[::-1].index(0)
    return Pieces(found.backend_tokenizer, found.pad_token_id, found.unk_token_id, ids[:first], ids[last:])


def layers_of(folder: str) -> Any:
    """Return the network of the encoder in a folder, with its weights.

    Raises:
        UserError: there is none that can be read.
        MissingPackageError: transformers is not installed.
    """
    with torch.device("cpu"):  # it cannot read weights into tensors of no memory
        network: Any = _read(folder, "AutoModel", dtype=torch.float32)
    if network.config.is_encoder_decoder or not isinstance(network.get_input_embeddings(), nn.Embedding):
        raise UserError(f"{folder}: is no encoder of texts; take one like BERT")
    return network


def digest_of(folder: str) -> str:
    """Return the SHA-256 of the files of an encoder; "" where there are none."""
    files = sorted(file for file in Path(folder).glob("*") if file.suffix in SUFFIXES and file.is_file())
    return _digest(tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)) if files else ""


@functools.lru_cache(maxsize=4)
def _digest(files: Sequence[tuple[str, int, int]]) -> str:
    digests = []
    for name, _, _ in files:
        with Path(name).open("rb") as file:
            digests.append(f"{Path(name).name} {hashlib.file_digest(file, 'sha256').hexdigest()}")
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _read(folder: str, kind: str, **options: Any) -> Any:
    require(PACKAGES, EXTRA, f"{folder}: an encoder")
    import transformers
    from transformers.utils import logging

    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder; {REMEDY}")
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return getattr(transformers, kind).from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # whatever the files of a stranger make it raise
        told = " ".join(str(error).split())[:150] or type(error).__name__
        raise UserError(f"{folder}: holds no encoder that transformers can read ({told}); {REMEDY}") from error
