"""What an exam that is made again finds of itself on disk."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ltsd.errors import UserError


def kept(
    path: Path | None,
    fingerprint: str,
    blocks: Tensor | None,
    read: Callable[[Path], tuple[Mapping[str, Any], str]],
    write: Callable[[Path, Mapping[str, Any], str], None],
) -> dict[str, Any]:
    """Return what a file holds of exactly this exam; nothing if it is missing, damaged, or of another exam.

    What a file has with other blocks, or without any, gets `blocks`, and the file is written anew.

    Args:
        path: of the file; None for none.
        fingerprint: of the exam.
        blocks: int64 [N], equal for images that a bootstrap draws together; None for none.
        read: (path) -> what was found out by attack, dataclasses with `blocks`, and the fingerprint; raises a UserError
            if the file cannot be read.
        write: (path, what was found out, fingerprint).
    """
    if path is None:
        return {}
    try:
        found, of_file = read(path)
    except UserError:
        return {}
    if of_file != fingerprint:
        return {}
    known = {name: replace(one, blocks=blocks) for name, one in found.items()}
    if any(not _are_same(one.blocks, blocks) for one in found.values()):
        write(path, known, fingerprint)
    return known


def _are_same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other if one is None or other is None else torch.equal(one, other)
