"""Folders written by Hugging Face's `save_to_disk`: which Arrow files are data, and which of their rows."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa

from ltsd.data.filesystems import Place
from ltsd.errors import UserError

STATE = "state.json"
ROWS_AT_ONCE = 1000
CACHE = "cache files that Hugging Face's datasets left"


class Rows(Protocol):
    """Rows of images and labels; messages call them `name`."""

    @property
    def name(self) -> str:
        """Return the name of the table in messages."""

    def schema(self) -> pa.Schema:
        """Return the columns and metadata."""

    def columns(self) -> tuple[str, str]:
        """Return the names of the image and the label column."""

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in batches."""


@dataclass(frozen=True)
class Selected:
    """Rows of tables in the order of a file of indices, as `shuffle`, `select` and `filter` leave them."""

    tables: Sequence[Rows]
    indices: pa.ChunkedArray
    name: str

    def schema(self) -> pa.Schema:
        """See `Rows`."""
        return self.tables[0].schema()

    def columns(self) -> tuple[str, str]:
        """See `Rows`."""
        return self.tables[0].columns()

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See `Rows`. Files of this machine are mapped into memory, others are read at once."""
        batches = [batch for table in self.tables for batch in table.batches(columns)]
        ends = np.cumsum([batch.num_rows for batch in batches])
        for start in range(0, len(self.indices), ROWS_AT_ONCE):
            rows = self.indices.slice(start, ROWS_AT_ONCE).to_numpy().astype(np.int64)
            if rows.min() < 0 or rows.max() >= ends[-1]:
                raise pa.ArrowIndexError(f"index {rows.max()} of {ends[-1]} rows")
            which = np.searchsorted(ends, rows, side="right")
            found = [
                batches[k].slice(row - ends[k] + batches[k].num_rows, 1) for k, row in zip(which, rows, strict=True)
            ]
            yield from pa.Table.from_batches(found).combine_chunks().to_batches()


@dataclass(frozen=True)
class SavedFolders:
    """By folder, relative and with a trailing slash, the names of its data files and of its index files."""

    place: Place
    folders: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]

    @classmethod
    def of(cls, place: Place, paths: Sequence[str]) -> Self:
        """Return the folders of a source that have a `state.json`.

        Raises:
            UserError: one of these cannot be read, or names files that are not there.
        """
        states = [path for path in paths if path.rpartition("/")[2] == STATE]
        folders = {path.removesuffix(STATE): _state(place, path) for path in states}
        for folder, (files, indices) in folders.items():
            lacking = [name for name in (*files, *indices) if f"{folder}{name}" not in paths]
            if lacking:
                raise UserError(
                    f"--data.source {place.source}: {folder}{STATE} names {lacking[0]}, which is not there; save the "
                    f"data set again"
                )
        return cls(place, folders)

    @property
    def is_one(self) -> bool:
        """Return whether the source itself is such a folder: a data set without splits."""
        return "" in self.folders

    def is_cache(self, path: str) -> bool:
        """Return whether an Arrow file is not data of its folder.

        Beside a `state.json`, that is every file it does not name; elsewhere, every file named like a cache.
        """
        folder, slash, name = path.rpartition("/")
        if (known := self.folders.get(f"{folder}{slash}")) is not None:
            return name not in known[0]
        return name.startswith("cache-") and name.endswith(".arrow")

    def told(self, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the paths that are caches, by the reason to skip them."""
        indices = set(self.indices_of(paths))
        caches = tuple(path for path in paths if self.is_cache(path) and path not in indices)
        return {CACHE: caches} if caches else {}

    def indices_of(self, paths: Sequence[str]) -> list[str]:
        """Return the index files that belong to tables."""
        folders = dict.fromkeys(path[: path.rfind("/") + 1] for path in paths)
        return [f"{folder}{name}" for folder in folders for name in self.folders.get(folder, ((), ()))[1]]

    def selected(self, tables: Mapping[str, Rows]) -> list[Rows]:
        """Return the tables of a split; those of a saved folder in its order, with the rows it selects."""
        found = list[Rows]()
        done = set[str]()
        for path, table in tables.items():
            folder = path[: path.rfind("/") + 1]
            if folder not in self.folders:
                found.append(table)
            elif folder not in done:
                done.add(folder)
                found += self._of_folder(folder, tables)
        return found

    def _of_folder(self, folder: str, tables: Mapping[str, Rows]) -> list[Rows]:
        files, indices = self.folders[folder]
        ordered = [tables[f"{folder}{name}"] for name in files]
        if not indices:
            return ordered
        named = ordered[0].name.removesuffix(files[0])
        return [Selected(ordered, self._indices([f"{folder}{name}" for name in indices]), named.rstrip("/"))]

    def _indices(self, paths: Sequence[str]) -> pa.ChunkedArray:
        try:
            tables = [pa.ipc.open_stream(self.place.read(path)).read_all() for path in paths]
            return pa.concat_tables(tables)["indices"]
        except (pa.ArrowException, OSError, KeyError) as error:
            raise UserError(
                f"--data.source {self.place.source}: {paths[0]} is no file of indices ({error}); save the data set "
                f"again"
            ) from error


def _state(place: Place, path: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        content: Any = json.loads(place.read(path))
        lists = [content.get(key) or [] for key in ("_data_files", "_indices_data_files")]
        files, indices = (tuple(str(file["filename"]) for file in listed) for listed in lists)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"--data.source {place.source}: {path} cannot be read ({error}); save the data set again"
        ) from error
    if not files:
        raise UserError(f"--data.source {place.source}: {path} names no data files; save the data set again")
    return files, indices
