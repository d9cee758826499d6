"""Arrays that are written to a temporary file as they come, and mapped into memory: a set never has to fit there."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from ltsd.errors import UserError

PIECE = 2**25
"""Bytes that are copied at a time."""


class Spool:
    """A temporary file of rows of one shape. It has no name, so that nothing of it is left behind.

    Args:
        folder: on the disk that has room for the rows.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - `mapped` closes it
        self._kind = np.dtype("uint8")
        self._shape: tuple[int, ...] = ()
        self._rows = 0

    def add(self, rows: NDArray[Any]) -> None:
        """Append rows [N, ...], all of one shape and dtype.

        Raises:
            UserError: the disk is full.
        """
        self._kind, self._shape, self._rows = rows.dtype, rows.shape[1:], self._rows + len(rows)
        try:
            self._file.write(np.ascontiguousarray(rows).data)
        except OSError as error:
            raise full(self._folder, error) from error

    def mapped(self) -> NDArray[Any]:
        """Return all rows, as a read-only map of the file.

        Raises:
            UserError: the disk is full.
        """
        if not self._rows or not self._shape_bytes():
            return np.zeros((self._rows, *self._shape), dtype=self._kind)
        try:
            self._file.flush()
        except OSError as error:
            raise full(self._folder, error) from error
        with self._file:  # the map keeps the content
            mapped: NDArray[Any] = np.memmap(
                cast(Any, self._file), dtype=self._kind, mode="r", shape=(self._rows, *self._shape)
            )
            return mapped

    def _shape_bytes(self) -> int:
        return int(np.prod(self._shape)) * (self._kind.itemsize)


def full(folder: Path, error: OSError) -> UserError:
    """Return what to say where decoded images cannot be written."""
    return UserError(
        f"decoded images cannot be written to {folder} ({error.strerror}); free room there, set XDG_CACHE_HOME to a "
        f"folder of a larger disk, or a smaller --data.image-size"
    )


def pieces(rows: int, bytes_of_one: int) -> Iterator[slice]:
    """Yield slices of so many rows as are copied at a time."""
    size = max(1, PIECE // max(1, bytes_of_one))
    return (slice(start, min(rows, start + size)) for start in range(0, rows, size))


def taken(array: NDArray[Any], rows: NDArray[np.int64], folder: Path) -> NDArray[Any]:
    """Return rows of an array; of one on disk, in another temporary file of a folder."""
    if not isinstance(array, np.memmap):
        return array[rows]
    spool = Spool(folder)
    for piece in pieces(len(rows), array[:1].nbytes):
        spool.add(array[rows[piece]])
    return spool.mapped()


def concatenated(arrays: list[NDArray[Any]], folder: Path) -> NDArray[Any]:
    """Return the rows of several arrays; if one is on disk, in another temporary file of a folder."""
    if not any(isinstance(array, np.memmap) for array in arrays):
        return np.concatenate(arrays)
    spool = Spool(folder)
    for array in arrays:
        for piece in pieces(len(array), array[:1].nbytes):
            spool.add(array[piece])
    return spool.mapped()
