"""Reuse the results of an exam that an earlier run kept on disk."""

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
    """Return the results of exactly this exam in a file; {} if it is missing, damaged, or of another exam.

    Results with other blocks, or without blocks, get `blocks`, and the file is written again.

    Args:
        path: of the file; None for none.
        fingerprint: of the exam.
        blocks: int64 [N], equal for images that a bootstrap draws together; None for none.
        read: (path) -> the results by attack, dataclasses with `blocks`, and the fingerprint; raises a UserError if the
            file cannot be read.
        write: (path, results, fingerprint).
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
