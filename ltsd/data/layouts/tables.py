"""Images in Parquet and Arrow files in the layouts of the Hugging Face library, with classes, label maps or boxes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ltsd.answers import VOID
from ltsd.config import DataConfig
from ltsd.data.boxes import of_widths
from ltsd.data.decode import Encoded, Label, Mask
from ltsd.data.filesystems import Place
from ltsd.data.layouts.cards import read_card
from ltsd.data.layouts.label_maps import checked_names
from ltsd.data.layouts.layout import WHOLE, find_layout
from ltsd.data.layouts.members import members
from ltsd.data.layouts.reading import Opened
from ltsd.data.layouts.roles import by_role, choices_of
from ltsd.data.layouts.saved import Rows, SavedFolders
from ltsd.data.layouts.table_files import (
    AUDIO_COLUMN,
    BBOX,
    BOX_COLUMN,
    CATEGORY,
    TEXT_COLUMN,
    UNREADABLE,
    Table,
    content_of,
    holds_boxes,
    holds_masks,
    holds_names,
)
from ltsd.data.layouts.text_files import SUFFIXES as TEXT_FILES
from ltsd.data.names import in_order
from ltsd.data.units import Kind, Unit
from ltsd.errors import UserError

SUFFIXES = (".parquet", ".arrow")
HELD_OUT = ("validation", "test")
CLASSES = "classes"
"""The feature that names the classes of label maps: no column has this name."""
KINDS: Mapping[str, Kind] = {AUDIO_COLUMN: "clip", TEXT_COLUMN: "text"}
"""What else than images is in a column, by its name."""
HELD: Mapping[Unit, str] = {"image": "classes", "pixel": "label maps", "box": "boxes"}


def open_tables(place: Place, paths: Sequence[str], data: DataConfig) -> Opened | None:
    """Open the Parquet files of a source, else its Arrow files, by split; None if a folder has neither, and for a file
    of texts in rows.

    A single file is training data. Class names are those of the Hugging Face metadata, else the labels of the training
    images if they are strings, else the numbers up to the largest label; of label maps without names there are none
    yet.

    Args:
        paths: relative to the source, none of them hidden.

    Raises:
        UserError: no training file, a file that is no image set or lacks the column of groups, or too many classes for
            label maps.
    """
    of_suffix = ([path for path in paths if path.casefold().endswith(suffix)] for suffix in SUFFIXES)
    found = list(paths) if place.is_file else next(filter(None, of_suffix), [])
    if not found or (place.is_file and found[0].casefold().endswith(TEXT_FILES)):
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
        split: saved.selected(
            {path: Table(place, file_of[path], place.shown(file_of[path]), data.labels == "boxes") for path in files}
        )
        for split, files in layout.splits.items()
    }
    train = [table for split in roles["train"] for table in splits[split]]
    if not train:
        raise UserError(
            f"--data.source {data.source}: none of its Parquet or Arrow files is named train*: "
            f"{place.shown(file_of[found[0]])} …; --data.split-map train=NAME names a folder, or a file by its stem"
        )
    unit = _unit(train[0])
    names = _map_names(data.source, train[0]) if unit == "pixel" else _class_names(train)
    used = [split for of_role in roles.values() for split in of_role]
    unlabelled = [split for role in HELD_OUT for split in roles[role] if _are_withheld(splits[split])]
    return Opened(
        class_names=names,
        config=layout.config,
        rows={split: _rows(tables, names, unit, _is_named(train[0])) for split, tables in splits.items()},
        files={split: [*files, *saved.indices_of(list(files))] for split, files in layout.splits.items()},
        roles=roles,
        unlabelled=unlabelled,
        passed_over={**layout.passed_over, **saved.told(found)},
        kind=KINDS.get(train[0].columns()[0], "image"),
        groups={split: members(splits[split], data.group_by) for split in used} if data.group_by is not None else {},
    )


def _are_withheld(tables: Sequence[Rows]) -> bool:
    """Return whether no row has a label: all are null or -1, which the hub writes for unpublished labels, have no mask,
    or no box.
    """
    for table in tables:
        _, label = table.columns()
        labelled = {"image": _classes_or_none, "pixel": _mask_sizes, "box": _box_counts}[_unit(table)]
        try:
            if any(pc.any(pc.not_equal(*labelled(batch[label]))).as_py() for batch in table.batches([label])):
                return False
        except UNREADABLE as error:
            raise UserError(f"{table.name} cannot be read ({error})") from error
    return True


def _classes_or_none(labels: pa.Array) -> tuple[pa.Array, int | str]:
    """Return labels, and what stands for none."""
    if holds_names(labels.type):
        return pc.fill_null(labels.cast(pa.string()), ""), ""
    return pc.fill_null(labels, -1), -1


def _mask_sizes(masks: pa.Array) -> tuple[pa.Array, int]:
    """Return the bytes of masks, and what stands for none."""
    content = pc.struct_field(masks, "bytes") if pa.types.is_struct(masks.type) else masks
    return pc.fill_null(pc.binary_length(content), 0), 0


def _box_counts(objects: pa.Array) -> tuple[pa.Array, int]:
    """Return the number of boxes of each image, and what stands for none."""
    return pc.fill_null(pc.list_value_length(pc.struct_field(objects, CATEGORY)), 0), 0


def _unit(table: Rows) -> Unit:
    """Return what has a label in a table."""
    _, label = table.columns()
    kind = table.schema().field(label).type
    return "pixel" if holds_masks(kind) else "box" if holds_boxes(kind) else "image"


def _class_names(tables: Sequence[Rows]) -> list[str]:
    """Return the names of classes of images or boxes: those that the metadata or the labels name, else the numbers up
    to the largest one.
    """
    _, label = tables[0].columns()
    if _is_named(tables[0]):
        return in_order({name for table in tables for name in _names_in(table) if name})
    return _names_in_metadata(tables[0].schema(), label) or [str(c) for c in range(_count_classes(tables))]


def _names_in(table: Rows) -> Iterator[str | None]:
    """Yield the labels of a table, which are strings."""
    _, label = table.columns()
    try:
        for batch in table.batches([label]):
            yield from pc.unique(batch[label].cast(pa.string())).to_pylist()
    except UNREADABLE as error:
        raise UserError(f"{table.name} cannot be read ({error})") from error


def _map_names(source: str, table: Rows) -> list[str]:
    """Return the names of classes that pixels have; empty if the metadata name none.

    Raises:
        UserError: more than there are indices.
    """
    _, mask = table.columns()
    named = (_names_in_metadata(table.schema(), feature) for feature in (CLASSES, mask))
    return checked_names(source, next(filter(None, named), []))


def _names_in_metadata(schema: pa.Schema, label: str) -> list[str]:
    """Return the class names that the Hugging Face library wrote; empty if there are none of a known form."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])
        feature = features["info"]["features"][label]
        if label == BOX_COLUMN:  # a list of dictionaries, or a dictionary of lists
            feature = feature["feature"][CATEGORY] if "feature" in feature else feature[CATEGORY]["feature"]
        return [str(name) for name in feature["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _count_classes(tables: Sequence[Rows]) -> int:
    """Return the largest label plus one. Every class has a label, so it cannot exceed the number of labels."""
    largest, rows = -1, 0
    for table in tables:
        _, label = table.columns()
        try:
            for batch in table.batches([label]):
                labels = batch[label]
                if label == BOX_COLUMN:
                    labels = pc.list_flatten(pc.struct_field(labels, CATEGORY))
                found = pc.max(labels).as_py()
                largest, rows = max(largest, -1 if found is None else found), rows + len(labels)
        except UNREADABLE as error:
            raise UserError(f"{table.name} cannot be read ({error})") from error
    if largest >= max(1, rows):
        raise UserError(
            f"{tables[0].name}: the largest label is {largest}, of {rows} rows without class names; labels are the "
            f"numbers from 0 to the number of classes less one"
        )
    return largest + 1


def _is_named(table: Rows) -> bool:
    """Return whether labels are the names of classes."""
    _, label = table.columns()
    return holds_names(table.schema().field(label).type)


def _rows(tables: Sequence[Rows], names: Sequence[str], unit: Unit, named: bool) -> Encoded:
    numbers = {name: number for number, name in enumerate(names)}
    for table in tables:
        columns = table.columns()
        if (own := _unit(table)) != unit:
            raise UserError(
                f"{table.name}: its column {columns[1]} holds {HELD[own]}, and that of the training images "
                f"{HELD[unit]}; leave its split out with --data.split-map"
            )
        if named and not _is_named(table):
            raise UserError(
                f"{table.name}: its column {columns[1]} holds numbers, and that of the first training file the names "
                f"of classes; write names in both"
            )
        row = 0
        try:
            for batch in table.batches(columns):
                for image, label in zip(*(batch[name].to_pylist() for name in columns), strict=True):
                    place = f"{table.name} row {row}"
                    number = numbers.get(label, label) if isinstance(label, str) else label
                    checked = _label(place, columns[1], number, unit, len(names))
                    if not (content := content_of(image)):
                        raise UserError(f"{place}: has no bytes in the column {columns[0]}")
                    yield place, content, checked
                    row += 1
        except UNREADABLE as error:
            raise UserError(f"{table.name} cannot be read after row {row} ({error})") from error


def _label(place: str, column: str, label: Any, unit: Unit, num_classes: int) -> Label:
    if unit == "pixel":
        return _mask(place, column, label)
    if unit == "image":
        return _class(place, label, num_classes)
    classes, boxes = ((label or {}).get(name) or [] for name in (CATEGORY, BBOX))
    if len(classes) != len(boxes):
        raise UserError(f"{place}: has {len(boxes)} boxes and {len(classes)} categories; each box needs one")
    named = [f"box {k}" for k in range(len(boxes))]
    checked = [_class(f"{place}, {name}", one, num_classes) for name, one in zip(named, classes, strict=True)]
    return of_widths(place, named, checked, boxes)


def _class(place: str, label: int | str | None, num_classes: int) -> int:
    if label is None or isinstance(label, str) or not 0 <= label < num_classes:
        raise UserError(
            f"{place}: label {label!r} is outside the {num_classes} classes; mend it, or leave its split out with "
            f"--data.split-map"
        )
    return label


def _mask(place: str, column: str, label: Mapping[str, Any] | bytes | None) -> Mask:
    content = label["bytes"] if isinstance(label, Mapping) else label
    if not content:
        raise UserError(
            f"{place}: has an image and no mask in the column {column}; add one ({VOID} is void), or take the row away"
        )
    return Mask(f"{place}, column {column}", content)
