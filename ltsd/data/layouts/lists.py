"""Text files that list the images of a data set, as ImageNet-LT, Places-LT and iNaturalist 2018 are distributed: a path
and a label a line, a file a split.
"""

import re
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from pathlib import Path
from posixpath import commonpath, dirname, normpath, split
from typing import NamedTuple

from pyarrow import ArrowException
from pyarrow.fs import FileType

from ltsd.config import DataConfig
from ltsd.data.filesystems import FLAG, Place, unusable
from ltsd.data.layouts.layout import WHOLE
from ltsd.data.layouts.roles import ROLE_OF, WORD, by_role, choices_of, role_of
from ltsd.data.names import listed, shortened
from ltsd.errors import UserError

SUFFIX = ".txt"
LINE = re.compile(r"\s*([^\s\0](?:[^\0]*[^\s\0])?)\s+(-?[0-9]{1,9})\s*")
LIST = re.compile(r"[^/]+\.txt", re.IGNORECASE)
SHOWN = 60


class Entry(NamedTuple):
    """A line of a list: its number, from 1; the path of its image, relative to the images' folder; the label."""

    line: int
    path: str
    label: int


def is_list(place: Place) -> bool:
    """Return whether a source is one text file, given by its path."""
    return place.is_file and "://" not in place.source and place.source.casefold().endswith(SUFFIX)


def in_folder(place: Place) -> Place:
    """Return the training list that lies in a folder.

    Raises:
        UserError: there is none, or several.
    """
    found = [file for file in place.files if LIST.fullmatch(place.relative(file))]
    train = [file for file in found if role_of(file.base_name) == "train"]
    if len(train) != 1:
        raise UserError(
            f"--data.source {place.source}: with --data.root it is a list of images, or a folder with one whose name "
            f"says train; it has {listed([file.base_name for file in train or found]) or 'no text file'}; name one"
        )
    return Place(train[0].path, place.filesystem, train[0].path, tuple(train))


def with_images(place: Place, data: DataConfig) -> Place:
    """Return a list and those of the other splits beside it, with the images that they name and that are there.

    Raises:
        UserError: a list that cannot be read, or is none; a folder of images that is not there; as `lists_by_role`.
    """
    splits, roles = lists_by_role(place, data)
    used = [splits[split] for of_role in roles.values() for split in of_role]
    images = {path for one in used for path in paths_of(one, images_folder(place, data))}
    paths = sorted({*splits.values(), *images})
    try:
        found = place.filesystem.get_file_info(paths)
    except (ArrowException, OSError, ValueError) as error:
        raise unusable(place.source, FLAG, error) from error
    there = tuple(file for file in found if file.type == FileType.File)
    root = commonpath([dirname(file.path) for file in there])
    return replace(place, root=root, files=there, names_its_files=True)


def lists_by_role(place: Place, data: DataConfig) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Return the paths of the lists by split, and the splits by role; a list that is alone, and named as no split is,
    trains.

    Raises:
        UserError: no list trains; as `by_role`.
    """
    choices = choices_of(data.split_map)
    splits = _beside(_own(place), {name for chosen in choices.values() for name in chosen})
    roles = by_role(data.source, [split for split in splits if split != WHOLE], choices)
    if WHOLE in splits:
        roles["train"] = (WHOLE,)
    if not roles["train"]:
        raise UserError(
            f"--data.source {data.source}: has beside it no list of the same name with train in place of "
            f"{next(iter(splits))}; bring it, or name the list to train on with --data.split-map train=NAME"
        )
    return splits, roles


def images_folder(place: Place, data: DataConfig) -> str:
    """Return the absolute path of the folder that paths in a list are relative to.

    Raises:
        UserError: it is not there.
    """
    if data.root is None:
        return dirname(_own(place))
    folder = normpath(Path(data.root).expanduser().absolute())
    if not Path(folder).is_dir():
        raise UserError(
            f"--data.root {data.root}: no such folder; give the one that the paths in {place.source} are relative to"
        )
    return folder


def entries_of(path: str) -> list[Entry]:
    """Return the lines of a list; empty ones are passed over.

    Raises:
        UserError: it cannot be read, or a line is no path and label, its path leaves the folder of images, or its label
            is negative; there is no line.
    """
    try:
        about = Path(path).stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return _entries(path, about.st_size, about.st_mtime_ns)


def paths_of(path: str, folder: str) -> list[str]:
    """Return the absolute paths of the images of a list."""
    return [f"{folder.rstrip('/')}/{entry.path}" for entry in entries_of(path)]


def _own(place: Place) -> str:
    return normpath(Path(place.source).expanduser().absolute())


def _beside(path: str, named: Collection[str]) -> dict[str, str]:
    """Return the lists in a list's folder that differ from it by the word for the split alone, by that word; itself as
    WHOLE if its name states no split.
    """
    folder, file = split(path)
    stem = file[: -len(SUFFIX)]
    if not role_of(stem):
        return {WHOLE: path}
    start, end = next(match.span() for match in WORD.finditer(stem) if match[0].casefold() in ROLE_OF)
    before, after = stem[:start], stem[end:] + file[-len(SUFFIX) :]
    splits = {stem[start:end]: path}
    for other in sorted(one.name for one in Path(folder).iterdir()):
        word = other[len(before) : len(other) - len(after)]
        if other == before + word + after and (word.casefold() in ROLE_OF or word in named):
            splits[word] = f"{folder}/{other}"
    return splits


@cache
def _entries(path: str, size: int, mtime_ns: int) -> list[Entry]:
    """Return the lines of a list of this size and age."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    found = [_entry(f"{path} line {number}", number, line) for number, line in numbered]
    if not found:
        raise UserError(f"{path}: lists no image; write a line for each, its path and its label: images/0017.jpg 4")
    return found


def _entry(where: str, number: int, line: str) -> Entry:
    match = LINE.fullmatch(line)
    if match is None:
        raise UserError(
            f"{where}: {shortened(line, SHOWN)!r} is not the path of an image, a blank and the number of its class; "
            f"write it as images/0017.jpg 4"
        )
    path, label = normpath(match[1]), int(match[2])
    if path.split("/")[0] in ("", ".", ".."):
        raise UserError(
            f"{where}: the path {shortened(match[1], SHOWN)} is not below the folder of images; write it relative to "
            f"that, and name the folder with --data.root"
        )
    if label < 0:
        raise UserError(f"{where}: the label {label} is negative; number classes from 0, or take the line away")
    return Entry(number, path, label)
