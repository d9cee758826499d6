"""One Parquet or Arrow file: its columns and its rows, whole or refused."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileInfo

from ltsd.data.filesystems import Place
from ltsd.errors import UserError

MAX_UNPACKED, MAX_UNPACKED_RATIO = 256 * 2**20, 10
ROWS_AT_ONCE = 1000
IMAGE_COLUMNS = ("image", "img")
AUDIO_COLUMN = "audio"
TEXT_COLUMN = "text"
LABEL_COLUMNS = ("label", "labels", "fine_label")
MASK_COLUMNS = ("annotation", "label", "mask")
"""Columns of images whose pixels are class indices."""
BOX_COLUMN, BBOX, CATEGORY = "objects", "bbox", "category"
"""The column of boxes, a struct of lists, and its fields: [x, y, width, height] in pixels, and classes."""
PARQUET, ARROW_FILE, ARROW_STREAM = b"PAR1", b"ARRO", b"\xff" * 4
UNREADABLE = (pa.ArrowException, OSError, ValueError)


@dataclass(frozen=True)
class Table:
    """One file, its name in messages, and whether only boxes are its labels."""

    place: Place
    file: FileInfo
    name: str
    of_boxes: bool = False

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

        The label column holds classes, see `holds_classes`, or else masks, see `holds_masks`, or else boxes, see
        `holds_boxes`; only boxes where these are asked for.

        Raises:
            UserError: it lacks one, or a column is of another type.
        """
        schema = self.schema()
        types = {field.name: field.type for field in schema}
        image = next((name for name in (*IMAGE_COLUMNS, AUDIO_COLUMN, TEXT_COLUMN) if name in types), "")
        label = next((name for name in LABEL_COLUMNS if name in types), "")
        boxes = BOX_COLUMN if holds_boxes(types.get(BOX_COLUMN, pa.null())) else ""
        if self.of_boxes:
            label = boxes
        elif not holds_classes(types.get(label, pa.null())):
            label = next((name for name in MASK_COLUMNS if name in types and holds_masks(types[name])), boxes)
        if not (label and (has_bytes(types.get(image, pa.null())) or is_text(types.get(image, pa.null())))):
            raise UserError(
                f"{self.name} is not an image set: it needs the columns {' or '.join(IMAGE_COLUMNS)} (struct of bytes "
                f"and path) and {' or '.join(LABEL_COLUMNS)} (integers or strings), and has "
                f"{', '.join(f'{name} ({kind})' for name, kind in types.items())}; label maps are images in a column "
                f"{' or '.join(MASK_COLUMNS)}, boxes a struct {BOX_COLUMN} of the lists {BBOX} and {CATEGORY}; "
                f"clips of sound are in a column {AUDIO_COLUMN} (struct of bytes and path), texts in {TEXT_COLUMN} "
                f"(string)"
            )
        self._refuse_twice(schema, image, label)
        return image, label

    def encoded(self, known: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield (place, encoded bytes) of every row in the first of the known columns that there is.

        Raises:
            UserError: there is none, a row has no bytes there, or the file is damaged.
        """
        schema = self.schema()
        names = schema.names
        column = next((name for name in known if name in names), None)
        if column is None:
            raise UserError(f"{self.name} has no column {' or '.join(known)}; it has {', '.join(names)}")
        self._refuse_twice(schema, column)
        row = 0
        try:
            for batch in self.batches([column]):
                for image in batch[column].to_pylist():
                    if not (content := content_of(image)):
                        raise UserError(f"{self.name} row {row}: has no bytes in the column {column}")
                    yield f"{self.name} row {row}", content
                    row += 1
        except UNREADABLE as error:
            raise UserError(f"{self.name} cannot be read after row {row} ({error})") from error

    def _refuse_twice(self, schema: pa.Schema, *columns: str) -> None:
        for name in columns:
            if (count := schema.names.count(name)) > 1:
                raise UserError(f"{self.name}: has {count} columns {name}; rename all but one")

    def _opened(self) -> tuple[pa.NativeFile, bytes]:
        """Open the file; return it at its beginning, and its first four bytes."""
        source = self.place.filesystem.open_input_file(self.file.path)
        head = source.read(4)
        source.seek(0)
        return source, head


def content_of(value: Any) -> bytes:
    """Return the bytes of an image, a clip or a text in a row; b"" if there are none."""
    if isinstance(value, str):
        return value.encode()
    return bytes(value.get("bytes") or b"") if isinstance(value, dict) else b""


def has_bytes(kind: pa.DataType) -> bool:
    """Return whether a column is of images as the Hugging Face library writes them: structs of bytes and path."""
    return bool(pa.types.is_struct(kind)) and kind.get_field_index("bytes") >= 0


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column is of strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def holds_classes(kind: pa.DataType) -> bool:
    """Return whether a column of labels is of classes: their numbers or their names."""
    return bool(pa.types.is_integer(kind)) or holds_names(kind)


def holds_names(kind: pa.DataType) -> bool:
    """Return whether a column of labels is of the names of classes, strings or categories."""
    return is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)


def holds_masks(kind: pa.DataType) -> bool:
    """Return whether a column of labels is of encoded label maps: images, or plain bytes."""
    return has_bytes(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def holds_boxes(kind: pa.DataType) -> bool:
    """Return whether a column of labels is of boxes as the Hugging Face library writes them."""
    return bool(pa.types.is_struct(kind)) and min(kind.get_field_index(name) for name in (BBOX, CATEGORY)) >= 0


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
