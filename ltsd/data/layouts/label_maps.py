"""The class names of label maps."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ltsd.answers import VOID
from ltsd.errors import UserError

Maps = NDArray[np.uint8]


def checked_names(source: str, names: Sequence[str]) -> list[str]:
    """Return the class names of label maps.

    Raises:
        UserError: more than the indices below VOID.
    """
    if len(names) > VOID:
        raise UserError(
            f"--data.source {source}: has {len(names)} classes; label maps have at most {VOID}, 0 to {VOID - 1}, since "
            f"{VOID} is void"
        )
    return list(names)


def numbered_names(source: str, parts: Iterable[Maps]) -> list[str]:
    """Return `class 0`, `class 1` … up to the largest index in label maps [N, H, W], VOID aside.

    Raises:
        UserError: there is one class alone, as in masks of 0 and 255.
    """
    largest = max(int(maps[maps != VOID].max()) for maps in parts)
    if not largest:
        raise UserError(
            f"--data.source {source}: all pixels of its masks are of class 0 or {VOID}, void; of an object and its "
            f"ground write 1 and 0"
        )
    return [f"class {c}" for c in range(largest + 1)]
