"""Texts in CSV, TSV and JSON lines files: one file, and a source of texts with a class each."""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
from pyarrow import csv, json
from pyarrow.fs import FileInfo

from ltsd.config import DataConfig
from ltsd.data.clips import SUFFIXES as CLIPS
from ltsd.data.decode import Encoded
from ltsd.data.filesystems import Place
from ltsd.data.layouts.cards import read_card
from ltsd.data.layouts.folders import readable_suffixes
from ltsd.data.layouts.layout import WHOLE, find_layout
from ltsd.data.layouts.reading import Opened
from ltsd.data.layouts.roles import by_role, choices_of
from ltsd.data.layouts.table_files import LABEL_COLUMNS, TEXT_COLUMN, UNREADABLE
from ltsd.data.names import in_order
from ltsd.errors import UserError
from ltsd.knobs import nearest

SEPARATORS = {".csv": ",", ".tsv": "\t"}
LINES = ".jsonl"
SUFFIXES = (*SEPARATORS, LINES)


@dataclass(frozen=True)
class TextFile:
    """One file of SUFFIXES. Its rows are counted from 0, without the header of a CSV file."""

    place: Place
    file: FileInfo

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.place.shown(self.file)

    def texts(self) -> list[bytes]:
        """Return the UTF-8 texts, b"" where there is none.

        Raises:
            UserError: it cannot be read, or has no texts.
        """
        return self._read(TEXT_COLUMN)

    def labels(self) -> list[str]:
        """Return the labels, numbers as they are written.

        Raises:
            UserError: it cannot be read, has no labels, or none in a row.
        """
        column = next((name for name in LABEL_COLUMNS if name in self._columns()), LABEL_COLUMNS[0])
        found = [label.decode(errors="replace").strip() for label in self._read(column)]
        if "" in found:
            raise UserError(f"{self.name} row {found.index('')}: has no {column}; give it one, or take the row away")
        return found

    def has_classes(self) -> bool:
        """Return whether it has texts and labels, as far as it can be read."""
        try:
            columns = self._columns()
        except UserError:
            return False
        return TEXT_COLUMN in columns and any(name in columns for name in LABEL_COLUMNS)

    def _columns(self) -> Sequence[str]:
        """Return the names of its columns, of JSON lines the keys of the first ones."""
        self._refuse_utf_16()
        try:
            with self._opened() as content:
                if self._has_lines:
                    return list(json.open_json(content, json.ReadOptions(block_size=self._size)).schema.names)
                return list(csv.open_csv(content, csv.ReadOptions(block_size=self._size), self._cells).schema.names)
        except UNREADABLE as error:
            raise self._unreadable(error) from error

    def _read(self, column: str) -> list[bytes]:
        """Return a column of strings, or of integers in JSON lines."""
        if column not in (known := self._columns()):
            hint = "; separate columns by commas, in a .tsv file by tabs" if len(known) == 1 else ""
            raise UserError(f"{self.name}: has no column {column}; it has {', '.join(known)}{hint}")
        if known.count(column) > 1:
            raise UserError(f"{self.name}: has {known.count(column)} columns {column}; rename all but one")
        try:
            table = self._of_lines(column) if self._has_lines else self._of_cells(column)
        except UNREADABLE as error:
            raise self._unreadable(error) from error
        found = [str(one).encode() if isinstance(one, int) else one or b"" for one in table[column].to_pylist()]
        if SEPARATORS.get(_suffix(self.file.path)) == "\t":
            joined = next((row for row, one in enumerate(found) if b"\t" in one and b"\n" in one), None)
            if joined is not None:
                raise UserError(
                    f"{self.name} row {joined}: holds a tab and a new line, so that a quotation mark was not closed; "
                    f"double such marks, and put them around the text"
                )
        return found

    def _of_cells(self, column: str) -> pa.Table:
        with self._opened() as content:
            return csv.read_csv(
                content,
                csv.ReadOptions(use_threads=False, block_size=self._size),  # with threads, errors do not name the row
                self._cells,
                csv.ConvertOptions(include_columns=[column], column_types={column: pa.binary()}),
            )

    def _of_lines(self, column: str) -> pa.Table:
        def read(kind: pa.DataType) -> pa.Table:
            options = json.ParseOptions(explicit_schema=pa.schema([(column, kind)]), unexpected_field_behavior="ignore")
            with self._opened() as content:
                return json.read_json(content, json.ReadOptions(use_threads=False, block_size=self._size), options)

        try:
            table = read(pa.string())
        except pa.ArrowInvalid:
            if column == TEXT_COLUMN:
                raise
            return read(pa.int64())
        return table.cast(pa.schema([(column, pa.binary())]))  # pyarrow does not check that strings are UTF-8

    @property
    def _size(self) -> int:
        """So many bytes are read at a time: no row is too long then."""
        return int(min(max(2**20, self.file.size + 1), 2**31 - 1))

    @property
    def _has_lines(self) -> bool:
        return _suffix(self.file.path) == LINES

    @property
    def _cells(self) -> csv.ParseOptions:
        return csv.ParseOptions(delimiter=SEPARATORS[_suffix(self.file.path)], newlines_in_values=True)

    def _opened(self) -> pa.NativeFile:
        return self.place.filesystem.open_input_stream(self.file.path)

    def _refuse_utf_16(self) -> None:
        with self.place.filesystem.open_input_file(self.file.path) as content:
            if content.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise UserError(f"{self.name}: is not UTF-8 text (it begins as UTF-16); write it as UTF-8")

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(f"{self.name}: cannot be read ({' '.join(str(error).split())[:200]}); mend or re-export it")


def open_text_files(place: Place, paths: Sequence[str], data: DataConfig) -> Opened | None:
    """Open the files of texts of a source by split; None if no file has texts and labels.

    A single file is training data. The classes are the labels of the training texts in their order, numbers by size.

    Args:
        place: the source.
        paths: relative to it, none of them hidden.
        data: the data configuration.

    Raises:
        UserError: no file is named for training; a file cannot be read, or lacks a column; a row without label; a label
            that no training text has.
    """
    files = {path: TextFile(place, file) for file in place.files if _suffix(path := place.relative(file)) in SUFFIXES}
    suffixes = {_suffix(path) for path in paths}
    if not files or (suffixes & {*readable_suffixes(), *CLIPS} and not place.is_file):
        return None
    found = [path for path in paths if path in files]
    kept = [path for path in found if place.is_file or files[path].has_classes()]
    if not kept and suffixes <= set(SUFFIXES):
        files[found[0]].labels()  # says what is wrong with it
    # The same texts may be there in several formats.
    found = next(filter(None, ([path for path in kept if _suffix(path) == suffix] for suffix in SUFFIXES)), [])
    if not found:
        return None
    choices = choices_of(data.split_map)
    layout = find_layout(
        data.source,
        found,
        data.config,
        read_card(place, paths),
        named={name for chosen in choices.values() for name in chosen},
        by_file=not place.is_file,
    )
    roles = by_role(data.source, layout.names, choices)
    if not layout.names and place.is_file:
        roles["train"] = (WHOLE,)
    if not roles["train"]:
        raise UserError(
            f"--data.source {data.source}: none of its files of texts is named train*: {found[0]} …; --data.split-map "
            f"train=NAME names one by its stem"
        )
    splits = {split: [files[path] for path in own] for split, own in layout.splits.items()}
    names = in_order({label for split in roles["train"] for file in splits[split] for label in file.labels()})
    return Opened(
        class_names=names,
        config=layout.config,
        rows={split: _rows(own, names) for split, own in splits.items()},
        files={split: list(own) for split, own in layout.splits.items()},
        roles=roles,
        unlabelled=[],
        passed_over=layout.passed_over,
        kind="text",
    )


def _rows(files: Sequence[TextFile], names: Sequence[str]) -> Encoded:
    classes = {name: number for number, name in enumerate(names)}
    for file in files:
        for row, (text, label) in enumerate(zip(file.texts(), file.labels(), strict=True)):
            if label not in classes:
                raise UserError(
                    f"{file.name} row {row}: no training text has the label {label!r}{nearest(label, names)}; mend it, "
                    f"or leave its split out with --data.split-map"
                )
            yield f"{file.name} row {row}", text, classes[label]


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.casefold()
