"""Images in Parquet and Arrow files in the layouts of the Hugging Face library."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import FileInfo

from ltsd.config import DataConfig
from ltsd.data.cards import read_card
from ltsd.data.decode import Encoded
from ltsd.data.filesystems import Place
from ltsd.data.layout import WHOLE, find_layout
from ltsd.data.reading import Opened
from ltsd.data.roles import by_role, choices_of
from ltsd.data.saved import Rows, SavedFolders
from ltsd.errors import UserError

MAX_UNPACKED, MAX_UNPACKED_RATIO = 256 * 2**20, 10
ROWS_AT_ONCE = 1000
IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")
SUFFIXES = (".parquet", ".arrow")
HELD_OUT = ("validation", "test")
PARQUET, ARROW_FILE, ARROW_STREAM = b"PAR1", b"ARRO", b"\xff" * 4
UNREADABLE = (pa.ArrowException, OSError, ValueError)


@dataclass(frozen=True)
class Table:
    """One file, and its name in messages."""

    place: Place
    file: FileInfo
    name: str

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield its rows, at most 1000 at a time."""
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
        """Return its columns and metadata.

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
        """Return the names of its image and its label column: of each the first known name that it has.

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

    def images(self) -> Iterator[tuple[str, bytes]]:
        """Yield (place, encoded bytes) of every row, whatever its label.

        Raises:
            UserError: no column holds images, a row has none, or the file is damaged.
        """
        names = self.schema().names
        column = next((name for name in IMAGE_COLUMNS if name in names), None)
        if column is None:
            raise UserError(f"{self.name} has no column {' or '.join(IMAGE_COLUMNS)}; it has {', '.join(names)}")
        row = 0
        try:
            for batch in self.batches([column]):
                for image in batch[column].to_pylist():
                    if not isinstance(image, dict) or not image.get("bytes"):
                        raise UserError(f"{self.name} row {row}: has no image bytes")
                    yield f"{self.name} row {row}", image["bytes"]
                    row += 1
        except UNREADABLE as error:
            raise UserError(f"{self.name} cannot be read after row {row} ({error})") from error

    def _opened(self) -> tuple[pa.NativeFile, bytes]:
        """Open the file; return it at its beginning, and its first four bytes."""
        source = self.place.filesystem.open_input_file(self.file.path)
        head = source.read(4)
        source.seek(0)
        return source, head


def open_tables(place: Place, paths: Sequence[str], data: DataConfig) -> Opened | None:
    """Open the Parquet files of a source, else its Arrow files, by split; None if a folder has neither.

    A single file is training data. Class names are those of the Hugging Face metadata, else the numbers up to the
    largest label.

    Args:
        paths: relative to the source, none of them hidden.

    Raises:
        UserError: no training file, or a file that is no image set.
    """
    of_suffix = ([path for path in paths if path.casefold().endswith(suffix)] for suffix in SUFFIXES)
    found = list(paths) if place.is_file else next(filter(None, of_suffix), [])
    if not found:
        return None
    choices = choices_of(data.split_map)
    saved = SavedFolders.of(place, paths)
    layout = find_layout(
        data.source,
        [path for path in found if not saved.is_cache(path)],
        data.config,
        read_card(place, paths),
        named={name for chosen in choices.values() for name in chosen},
        by_file=not place.is_file,
    )
    roles = by_role(data.source, layout.names, choices)
    if not layout.names and (place.is_file or saved.is_one):
        roles["train"] = (WHOLE,)
    file_of = {place.relative(file): file for file in place.files}
    splits = {
        split: saved.selected({path: Table(place, file_of[path], place.shown(file_of[path])) for path in files})
        for split, files in layout.splits.items()
    }
    train = [table for split in roles["train"] for table in splits[split]]
    if not train:
        raise UserError(
            f"--data.source {data.source}: none of its Parquet or Arrow files is named train*: "
            f"{place.shown(file_of[found[0]])} …; --data.split-map train=NAME names a folder, or a file by its stem"
        )
    _, label = train[0].columns()
    names = _names_in_metadata(train[0].schema(), label) or [str(c) for c in range(_count_classes(train))]
    unlabelled = [split for role in HELD_OUT for split in roles[role] if _are_withheld(splits[split])]
    return Opened(
        class_names=names,
        config=layout.config,
        rows={split: _rows(tables, len(names)) for split, tables in splits.items()},
        files={split: [*files, *saved.indices_of(list(files))] for split, files in layout.splits.items()},
        roles=roles,
        unlabelled=unlabelled,
        passed_over={**layout.passed_over, **saved.told(found)},
    )


def _are_withheld(tables: Sequence[Rows]) -> bool:
    """Return whether no row has a label: all are null or -1, which the hub writes for unpublished labels."""
    for table in tables:
        _, label = table.columns()
        try:
            if any(
                pc.any(pc.not_equal(pc.fill_null(batch[label], -1), -1)).as_py() for batch in table.batches([label])
            ):
                return False
        except UNREADABLE as error:
            raise UserError(f"{table.name} cannot be read ({error})") from error
    return True


def _names_in_metadata(schema: pa.Schema, label: str) -> list[str]:
    """Return the class names that the Hugging Face library wrote; empty if there are none of a known form."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])
        return [str(name) for name in features["info"]["features"][label]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _count_classes(tables: Sequence[Rows]) -> int:
    """Return the largest label plus one. Every class has an image, so it cannot exceed the number of rows."""
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


def _rows(tables: Sequence[Rows], num_classes: int) -> Encoded:
    for table in tables:
        columns = table.columns()
        row = 0
        try:
            for batch in table.batches(columns):
                for image, label in zip(*(batch[name].to_pylist() for name in columns), strict=True):
                    place = f"{table.name} row {row}"
                    if label is None or not 0 <= label < num_classes:
                        raise UserError(
                            f"{place}: label {label} is outside the {num_classes} classes; mend it, or leave its split "
                            f"out with --data.split-map"
                        )
                    if not image or not image["bytes"]:
                        raise UserError(f"{place}: has no image bytes")
                    yield place, image["bytes"], label
                    row += 1
        except UNREADABLE as error:
            raise UserError(f"{table.name} cannot be read after row {row} ({error})") from error


def _arrow_batches(source: pa.NativeFile, head: bytes) -> Iterator[pa.RecordBatch]:
    """Yield the batches of an Arrow file or stream; a stream without an end mark was cut short."""
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
    """Refuse a file that unpacks to a multiple of its size: images do not, so it is built to fill the memory."""
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            packed, unpacked = chunk.total_compressed_size, chunk.total_uncompressed_size
            if unpacked > MAX_UNPACKED and unpacked > MAX_UNPACKED_RATIO * packed:
                raise UserError(
                    f"{name}: column {chunk.path_in_schema} of row group {group} unpacks {packed} bytes to {unpacked}; "
                    f"more than {MAX_UNPACKED_RATIO} times are refused; if that is meant, write it without compression"
                )
