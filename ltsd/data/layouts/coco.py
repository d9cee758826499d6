"""COCO's annotation files, `instances_<split>.json` or as Roboflow calls them, and the images that they name.

Of the format (https://cocodataset.org/#format-data) the boxes of instances are read.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from posixpath import basename, dirname, join, normpath
from typing import Any, NamedTuple

from ltsd.data.boxes import of_widths
from ltsd.data.filesystems import Place
from ltsd.data.layouts.annotated import AnnotatedImage, AnnotatedSet, AnnotatedSplit, DrawnBox, refuse_missing
from ltsd.data.layouts.layout import WHOLE
from ltsd.data.layouts.roles import WORD, role_of
from ltsd.data.names import shortened
from ltsd.errors import UserError

INSTANCES = re.compile(r"(?:(.*)/)?instances_([^/]+)\.json")
ROBOFLOW = re.compile(r"(?:(.*)/)?_annotations\.coco\.json")
ANNOTATIONS, SUFFIX = "annotations", ".json"
CROWDS = "boxes of crowds (iscrowd)"
SHOWN = 60
LARGEST = 1e9
"""Pixels; a number beyond is no side of a box."""


class _Image(NamedTuple):
    """An entry of `images`: its name and (width, height), None if it has none."""

    name: str
    size: tuple[int, int] | None


def is_annotation(place: Place) -> bool:
    """Return whether a source is one JSON file, given by its path."""
    return place.is_file and "://" not in place.source and place.source.casefold().endswith(SUFFIX)


def with_images(place: Place) -> Place:
    """Return a JSON file together with the images that it names and that are there.

    Raises:
        UserError: it is not one of COCO's.
    """
    (file,) = place.files
    path = normpath(file.path)
    found = filter(os.path.isfile, _paths(path, _names(path, file.size, file.mtime_ns), os.path.isfile))
    paths = sorted({path, *found})
    root = os.path.commonpath(list(map(dirname, paths)))
    return Place(place.source, place.filesystem, root, tuple(place.filesystem.get_file_info(paths)))


def find(place: Place, paths: frozenset[str]) -> Iterator[AnnotatedSet]:
    """Yield the data sets of a place: the JSON file that is its source, or those of its files that have COCO's names,
    by the folder above their `annotations` or the folders of their splits.
    """
    own = os.path.relpath(Path(place.source).expanduser(), place.root)
    homes: dict[str, dict[str, str]] = {"": {WHOLE: own}} if own in paths else {}
    for path in sorted(paths) if not homes else ():
        if match := INSTANCES.fullmatch(path):
            folder = match[1] or ""
            home = dirname(folder) if basename(folder).casefold() == ANNOTATIONS else folder
            homes.setdefault(home, {})[match[2]] = path
        elif match := ROBOFLOW.fullmatch(path):
            folder = match[1] or ""
            home, split = (dirname(folder), basename(folder)) if role_of(basename(folder)) else (folder, WHOLE)
            homes.setdefault(home, {})[split] = path
    for home, splits in homes.items():
        yield AnnotatedSet(home, splits, partial(_read, place, paths), of_widths, CROWDS)


def _paths(annotation: str, names: Sequence[str], exists: Callable[[str], bool]) -> list[str]:
    """Return the paths of images, in the folder that has most of them.

    It is beside the annotation file or beside its folder: that folder itself, its `images/`, or a folder in either
    which is named as the split is, `train2017` or `train`.
    """
    match = INSTANCES.fullmatch(annotation)
    split = match[2] if match else basename(annotation).partition(".")[0]
    named = dict.fromkeys([split, *WORD.findall(split)])
    inside = [*named, *(f"images/{name}" for name in named), "images", ""]
    best, most = list[str](), -1
    for folder in (join(dirname(annotation), up, one) for up in ("", "..") for one in inside):
        found = [normpath(join(folder, name)) for name in names]
        count = sum(map(exists, found))
        if count > most:
            best, most = found, count
        if count == len(names):
            break
    return best


@cache
def _names(path: str, size: int, mtime_ns: int) -> list[str]:
    """Return the names of the images of a JSON file of this size and age."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return [image.name for image in _images(path, _content(path, content)).values()]


def _read(place: Place, known: frozenset[str], path: str) -> AnnotatedSplit:
    where = f"{place.root}/{path}"
    content = _content(where, place.content(path))
    images, categories = _images(where, content), _categories(where, content)
    paths = dict(zip(images, _paths(path, [image.name for image in images.values()], known.__contains__), strict=True))
    refuse_missing(where, "image(s)", [images[key].name for key, one in paths.items() if one not in known])
    boxes: dict[Any, list[DrawnBox]] = {key: [] for key in images}
    crowds = list[str]()
    for name, entry in _entries(where, content, ANNOTATIONS):
        place_of = f"{where}, {name}"
        key, category = _key(place_of, entry, "image_id"), _key(place_of, entry, "category_id")
        for found, of, known_keys in ((key, "image_id", images), (category, "category_id", categories)):
            if found not in known_keys:
                raise UserError(f"{place_of}: its {of} {found!r} is not in the file; mend it, or take it away")
        if entry.get("iscrowd"):
            crowds.append(f"{path} {name}")
            continue
        boxes[key].append(DrawnBox(name, categories[category], _sides(place_of, entry)))
    return AnnotatedSplit(
        images=[
            AnnotatedImage(paths[key], f"{where}, image {image.name}", image.size, boxes[key])
            for key, image in images.items()
        ],
        categories=list(categories.values()),
        files=[path],
        left_out=crowds,
    )


def _content(where: str, content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is not JSON, or was cut short ({error})") from error
    if not isinstance(found, dict) or not isinstance(found.get("images"), list):
        raise UserError(
            f"{where}: is no annotation file of COCO; it needs the lists images, annotations and categories"
        )
    return found


def _entries(where: str, content: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the entries of a list, each with what messages call it: `annotation 17`."""
    one, entries = {"categories": "category"}.get(key, key[:-1]), content.get(key, [])
    if not isinstance(entries, list):
        raise UserError(f"{where}: its {key} are no list; write a list of objects")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise UserError(f"{where}: entry {number} of {key} is not an object with named values; mend it")
        yield f"{one} {entry['id']}" if "id" in entry else f"entry {number} of {key}", entry


def _images(where: str, content: dict[str, Any]) -> dict[Any, _Image]:
    images: dict[Any, _Image] = {}
    names = dict[str, str]()
    for called, entry in _entries(where, content, "images"):
        key, name = _key(f"{where}, {called}", entry, "id"), entry.get("file_name")
        if not isinstance(name, str) or not name:
            raise UserError(f"{where}, {called}: has no file_name; write the path of its image")
        if key in images or name in names:
            other = f"image {key}" if key in images else names[name]
            raise UserError(f"{where}, {called}: is a second entry beside {other} for one image, {name}; keep one")
        width, height = (entry.get(side) for side in ("width", "height"))
        is_given = isinstance(width, int) and isinstance(height, int) and min(width, height) > 0
        images[key] = _Image(name, (int(width or 0), int(height or 0)) if is_given else None)
        names[name] = called
    return images


def _categories(where: str, content: dict[str, Any]) -> dict[Any, str]:
    """Return the names of categories in the order of their ids."""
    found: dict[Any, str] = {}
    for called, entry in _entries(where, content, "categories"):
        key, name = _key(f"{where}, {called}", entry, "id"), entry.get("name")
        if not isinstance(name, str) or not name or key in found or name in found.values():
            raise UserError(f"{where}, {called}: {name!r} is not the name of one more category; mend it")
        found[key] = name
    return dict(sorted(found.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _key(place: str, entry: dict[str, Any], name: str) -> int | str:
    key = entry.get(name)
    if not isinstance(key, int | str):
        raise UserError(f"{place}: its {name} is {json.dumps(key)}; write a number")
    return key


def _sides(place: str, entry: dict[str, Any]) -> list[float]:
    sides = entry.get("bbox")
    are_four = isinstance(sides, list) and len(sides) == len("xywh")
    if not are_four or not all(isinstance(side, int | float) and abs(side) < LARGEST for side in sides or ()):
        shown = shortened(json.dumps(sides), SHOWN)
        raise UserError(f"{place}: its bbox is {shown}; write [x, y, width, height] in pixels")
    return [float(side) for side in sides or ()]
