"""Images in Parquet and Arrow files, as the Hugging Face library lays them out, wherever these lie."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import FileInfo

from ltsd.data.decode import Encoded
from ltsd.data.places import SPLIT_WORDS, Place
from ltsd.errors import UserError

MAX_UNPACKED, MAX_UNPACKED_RATIO = 256 * 2**20, 10
ROWS_AT_ONCE = 1000
IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")
SUFFIXES = (".parquet", ".arrow")
PARQUET, ARROW_FILE, ARROW_STREAM = b"PAR1", b"ARRO", b"\xff" * 4
UNREADABLE = (pa.ArrowException, OSError, ValueError)


@dataclass(frozen=True)
class Table:
    """One file, and what it is called in messages."""

    place: Place
    file: FileInfo
    name: str

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Its rows, at most 1000 at once."""
        source, head = self._opened()
        with source:
            if head == PARQUET:
                parquet = pq.ParquetFile(source, page_checksum_verification=True)
                _refuse_bomb(self.name, parquet.metadata)
                yield from parquet.iter_batches(ROWS_AT_ONCE, columns=columns)
                return
            # From memory: what a damaged length asks for is then held against the end of the file, not allocated.
            for batch in _arrow_batches(pa.BufferReader(source.read_buffer()), head):
                batch.validate(full=True)
                for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                    yield batch.select(columns).slice(start, ROWS_AT_ONCE)

    def schema(self) -> pa.Schema:
        """Its columns and metadata.

        Raises:
            UserError: not a Parquet or Arrow file, or cut short.
        """
        try:
            source, head = self._opened()
            with source:
                schema = pq.read_schema(source) if head == PARQUET else _arrow_reader(source, head).schema
                if not schema.names:
                    raise ValueError("it has no columns")
                return schema
        except UNREADABLE as error:
            raise UserError(f"{self.name} is not a Parquet or Arrow file, or was cut short ({error})") from error

    def columns(self) -> tuple[str, str]:
        """The names of its image and its label column, of each the first known one that it has.

        Raises:
            UserError: it lacks one, or a column is of another type.
        """
        types = {field.name: field.type for field in self.schema()}
        image = next((name for name in IMAGE_COLUMNS if name in types), "")
        label = next((name for name in LABEL_COLUMNS if name in types), "")
        kind = types.get(image, pa.null())
        has_bytes = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        if not (has_bytes and pa.types.is_integer(types.get(label, pa.null()))):
            raise UserError(
                f"{self.name} is not an image set: it needs the columns {' or '.join(IMAGE_COLUMNS)} (struct of bytes "
                f"and path) and {' or '.join(LABEL_COLUMNS)} (int64), and has "
                f"{', '.join(f'{name} ({kind})' for name, kind in types.items())}"
            )
        return image, label

    def _opened(self) -> tuple[pa.NativeFile, bytes]:
        """The file at its beginning, and its first four bytes."""
        source = self.place.filesystem.open_input_file(self.file.path)
        head = source.read(4)
        source.seek(0)
        return source, head


def read_tables(place: Place) -> tuple[list[str], dict[str, Encoded]] | None:
    """Class names and the images of each part, not decoded yet; None where a folder has no Parquet or Arrow file.

    A file is of the part whose word stands in its name, else in the nearest folder that has one; a single file is
    training data. Class names are those of the Hugging Face metadata, else the numbers up to the largest label.

    Raises:
        UserError: no training file, or a file that is no image set; while reading, a row that cannot be used.
    """
    parts = _parts(place)
    if parts is None:
        return None
    first = parts["train"][0]
    _, label = first.columns()
    names = _names_in_metadata(first.schema(), label) or [str(c) for c in range(_count_classes(parts["train"]))]
    return names, {part: _rows(tables, len(names)) for part, tables in parts.items()}


def _parts(place: Place) -> dict[str, list[Table]] | None:
    tables = [Table(place, file, place.shown(file)) for file in place.files]
    if place.is_file:
        return {"train": tables}
    of_suffix = ([table for table in tables if table.name.endswith(suffix)] for suffix in SUFFIXES)
    found = next(filter(None, of_suffix), [])
    if not found:
        return None
    word_of = {table.name: _split_word(table.file.path.removeprefix(place.root)) for table in found}
    parts = {
        part: next(filter(None, ([t for t in found if word_of[t.name] == word] for word in words)), [])
        for part, words in SPLIT_WORDS.items()
    }
    if not parts["train"]:
        raise UserError(
            f"--data.source {place.source}: none of its Parquet or Arrow files is named train*: {found[0].name} …"
        )
    return {part: tables for part, tables in parts.items() if tables}


def _split_word(path: str) -> str:
    """The word for a split that stands in a path by itself, the last one; none: an empty text."""
    words = [word for of_part in SPLIT_WORDS.values() for word in of_part]
    pattern = rf"(?<![A-Za-z])({'|'.join(words)})(?![A-Za-z])"
    for name in reversed(path.split("/")):
        if found := re.search(pattern, name):
            return found[1]
    return ""


def _names_in_metadata(schema: pa.Schema, label: str) -> list[str]:
    """The class names that the Hugging Face library wrote; none where it, or its form, is another."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])
        return [str(name) for name in features["info"]["features"][label]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _count_classes(tables: Sequence[Table]) -> int:
    """The largest label, and one. Every class has an image, so that it is no more than there are rows."""
    largest, rows = -1, 0
    for table in tables:
        _, label = table.columns()
        try:
            for batch in table.batches([label]):
                found = pc.max(batch[label]).as_py()
                largest, rows = max(largest, -1 if found is None else found), rows + len(batch)
        except UNREADABLE as error:
            raise UserError(f"{table.name} cannot be read ({error})") from error
    if largest >= max(1, rows):
        raise UserError(
            f"{tables[0].name}: the largest label is {largest}, of {rows} rows without class names; labels are the "
            f"numbers from 0 to the number of classes less one"
        )
    return largest + 1


def _rows(tables: Sequence[Table], num_classes: int) -> Encoded:
    for table in tables:
        columns = table.columns()
        row = 0
        try:
            for batch in table.batches(columns):
                for image, label in zip(*(batch[name].to_pylist() for name in columns), strict=True):
                    place = f"{table.name} row {row}"
                    if label is None or not 0 <= label < num_classes:
                        raise UserError(f"{place}: label {label} is outside the {num_classes} classes")
                    if not image or not image["bytes"]:
                        raise UserError(f"{place}: has no image bytes")
                    yield place, image["bytes"], label
                    row += 1
        except UNREADABLE as error:
            raise UserError(f"{table.name} cannot be read after row {row} ({error})") from error


def _arrow_batches(source: pa.NativeFile, head: bytes) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow file or stream; a stream that does not say its end was cut short."""
    if head == ARROW_STREAM:
        source.seek(max(0, source.size() - 8))
        if source.read(8) != ARROW_STREAM + bytes(4):
            raise ValueError("the stream was cut short: the mark of its end is missing")
        source.seek(0)
        yield from _arrow_reader(source, head)
    else:
        reader = _arrow_reader(source, head)
        yield from (reader.get_batch(index) for index in range(reader.num_record_batches))


def _arrow_reader(source: pa.NativeFile, head: bytes) -> Any:
    if head not in (ARROW_FILE, ARROW_STREAM):
        raise ValueError(f"it begins with {head!r}")
    return (pa.ipc.open_stream if head == ARROW_STREAM else pa.ipc.open_file)(source)


def _refuse_bomb(name: str, metadata: pq.FileMetaData) -> None:
    """Images are compressed already: what unpacks to a multiple of itself is made to fill the memory."""
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            packed, unpacked = chunk.total_compressed_size, chunk.total_uncompressed_size
            if unpacked > MAX_UNPACKED and unpacked > MAX_UNPACKED_RATIO * packed:
                raise UserError(
                    f"{name}: column {chunk.path_in_schema} of row group {group} unpacks {packed} bytes to {unpacked}; "
                    f"more than {MAX_UNPACKED_RATIO} times are refused; if that is meant, write it without compression"
                )
