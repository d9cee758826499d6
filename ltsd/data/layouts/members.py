"""Which rows of tables belong together, by a column that names their group."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ltsd.data.layouts.saved import Rows as Table
from ltsd.data.layouts.table_files import UNREADABLE
from ltsd.data.names import listed
from ltsd.errors import UserError
from ltsd.knobs import nearest


class Member(NamedTuple):
    """The group of an image, and the name of its file; "" for none."""

    group: str
    name: str


def members(tables: Sequence[Table], column: str) -> list[Member]:
    """Return the group and the name of every row, in order.

    Raises:
        UserError: a table has no such column, or a row no value in it.
    """
    found: list[Member] = []
    for table in tables:
        names, (image, _) = table.schema().names, table.columns()
        if column not in names:
            raise UserError(
                f"--data.group-by {column}: {table.name} has no such column; it has {', '.join(names)}"
                f"{nearest(column, names)}"
            )
        first = len(found)
        try:
            for batch in table.batches([column, image]):
                groups, images = batch[column].to_pylist(), batch[image].to_pylist()
                found += [Member(_text(g), _text(_path(one))) for g, one in zip(groups, images, strict=True)]
        except UNREADABLE as error:
            raise UserError(f"{table.name} cannot be read ({error})") from error
        for row, member in enumerate(found[first:]):
            if not member.group:
                raise UserError(f"{table.name} row {row}: has no {column}; add it, or leave out --data.group-by")
    return found


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _path(image: object) -> object:
    return image.get("path") if isinstance(image, Mapping) else None


def in_time(found: Sequence[Member]) -> list[int]:
    """Return the rows group by group; within a group by the numbers in the names, as frames are named, or in the order
    that there is where an image has no name.
    """
    if not all(member.name for member in found):
        return sorted(range(len(found)), key=lambda row: found[row].group)
    return sorted(range(len(found)), key=lambda row: (found[row].group, _numbers(found[row].name)))


def _numbers(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name) if part]


def shared_groups(found: Mapping[str, Sequence[Member]], column: str) -> list[str]:
    """Return a remark for every two parts of the data that share a group; `found` has the members by part."""
    of_part = {part: {member.group for member in rows} for part, rows in found.items()}
    notes, parts = list[str](), list(of_part)
    for i, one in enumerate(parts):
        for other in parts[i + 1 :]:
            if both := sorted(of_part[one] & of_part[other]):
                notes.append(f"{column} {listed(both)}: in {one} and in {other}")
    return notes
