"""PASCAL VOC's folders: `JPEGImages/`, an XML file with the boxes of each image in `Annotations/`, and the lists of
splits in `ImageSets/Main/`; and the same XML files beside their images, as labelling programs write them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from posixpath import basename, dirname, join
from typing import Any, NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ltsd.data.boxes import of_corners
from ltsd.data.filesystems import Place
from ltsd.data.layouts.annotated import SHOWN, AnnotatedImage, AnnotatedSet, AnnotatedSplit, DrawnBox, refuse_missing
from ltsd.data.layouts.folders import readable_suffixes
from ltsd.data.layouts.layout import WHOLE
from ltsd.data.layouts.roles import role_of
from ltsd.data.names import listed
from ltsd.errors import UserError

LIST = re.compile(r"(?:(.*)/)?ImageSets/Main/(train|val|trainval|test)\.txt")
ANNOTATION = re.compile(r"(?:(.*)/)?Annotations/[^/]+\.xml")
PIXELS = re.compile(r"[1-9][0-9]{0,8}")
IMAGES, ANNOTATIONS = "JPEGImages", "Annotations"
SUFFIX = ".xml"
SIDES = ("xmin", "ymin", "xmax", "ymax")
DIFFICULT = "objects marked difficult"


def find(place: Place, paths: frozenset[str], *, asked: bool) -> Iterator[AnnotatedSet]:
    """Yield the folders with `Annotations/` and `JPEGImages/`. One without lists of splits is a single split.

    Where there is none, yield the images that have XML files beside them: by the split that a folder above them states,
    or all as a single split. Where they lie in several folders, these may as well be classes: unless boxes are `asked`
    for, each split is in one folder.
    """
    homes = sorted({match[1] or "" for path in paths if (match := ANNOTATION.fullmatch(path))})
    lists = [match for path in sorted(paths) if (match := LIST.fullmatch(path))]
    for home in homes:
        images = _images(place, home, paths)
        if images:
            splits = {match[2]: match[0] for match in lists if (match[1] or "") == home}
            read = partial(_read, place, home, images, paths)
            yield AnnotatedSet(home, splits or {WHOLE: ""}, read, of_corners, DIFFICULT)
    if not homes:
        yield from _find_beside(place, paths, asked)


def _find_beside(place: Place, paths: frozenset[str], asked: bool) -> Iterator[AnnotatedSet]:
    annotations = {path[: -len(SUFFIX)]: path for path in paths if path.casefold().endswith(SUFFIX)}
    images = {stem: path for path in sorted(paths) if (stem := _stem(path)) != path}
    folders = sorted({dirname(stem) for stem in annotations.keys() & images.keys()})
    homes = {folder: _split_folder(folder) for folder in folders}
    states = {home is not None for home in homes.values()}
    if len(states) != 1 or not (asked or len(set(homes.values())) == len(folders)):
        return
    splits = {WHOLE: ""} if None in homes.values() else {basename(home): home for home in homes.values() if home}
    own = {stem: path for stem, path in images.items() if dirname(stem) in folders}
    read = partial(_read_beside, place, own, annotations, paths)
    yield AnnotatedSet("", splits, read, of_corners, DIFFICULT)


def _split_folder(folder: str) -> str | None:
    """Return the topmost folder of a path whose name states a split; None if there is none."""
    parts = folder.split("/")
    return next(("/".join(parts[: k + 1]) for k, part in enumerate(parts) if role_of(part)), None)


def _stem(path: str) -> str:
    """Return the path of an image without its ending; other paths as they are."""
    inside = PurePosixPath(path)
    return str(inside.with_suffix("")) if inside.suffix.casefold() in readable_suffixes() else path


def _read_beside(
    place: Place, images: dict[str, str], written: Mapping[str, str], known: frozenset[str], folder: str
) -> AnnotatedSplit:
    """Return the images below a folder, of "" all, with the XML files beside them, `written` by the same stems; raise
    as `_read`.
    """
    own = {stem: path for stem, path in images.items() if not folder or f"{stem}/".startswith(f"{folder}/")}
    bare = [path for stem, path in own.items() if stem not in written]
    if bare and len(bare) < len(own):
        raise UserError(
            f"{place.root}/{folder}: {len(bare):,} image(s) have no XML file beside them, as others have: "
            f"{listed(bare, SHOWN)}; label them, or take them away"
        )
    annotations = {stem: written.get(stem, stem) for stem in own}
    return _annotated(place, f"{place.root}/{folder}", own, annotations, known)


def _images(place: Place, home: str, paths: frozenset[str]) -> dict[str, str]:
    """Return the paths of images by their names in lists: without the folder and the ending.

    Raises:
        UserError: two have one name.
    """
    folder, images = join(home, IMAGES, ""), dict[str, str]()
    for path in sorted(paths):
        inside = PurePosixPath(path.removeprefix(folder))
        if path.startswith(folder) and inside.suffix.casefold() in readable_suffixes():
            name = str(inside.with_suffix(""))
            if name in images:
                raise UserError(f"{place.root}/{path}: is a second image named {name}, beside {images[name]}; keep one")
            images[name] = path
    return images


def _read(place: Place, home: str, images: dict[str, str], known: frozenset[str], path: str) -> AnnotatedSplit:
    """Return the images in a list, of path "" all.

    Raises:
        UserError: one is listed twice, is not there or, though others have one, has no annotation.
    """
    where = f"{place.root}/{path or home}"
    names = place.content(path).decode("utf-8-sig", errors="replace").split("\n") if path else list(images)
    names = [name.strip() for name in names if name.strip()]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{where}: names the image {twice} twice; take one away")
    refuse_missing(where, f"image(s) of {IMAGES}/", [name for name in names if name not in images])
    annotations = {name: join(home, ANNOTATIONS, f"{name}.xml") for name in names}
    found = _annotated(place, where, images, annotations, known)
    return replace(found, files=[*([path] if path else []), *found.files])


def _annotated(
    place: Place, where: str, images: Mapping[str, str], annotations: Mapping[str, str], known: frozenset[str]
) -> AnnotatedSplit:
    """Return images with their annotations.

    Args:
        place: the source.
        where: what messages call the split.
        images: their paths by name.
        annotations: the paths of their XML files by name.
        known: all paths.

    Raises:
        UserError: one has no annotation, though others have.
    """
    names = list(annotations)
    lacking = [name for name, one in annotations.items() if one not in known]
    if len(lacking) == len(names):  # those of a test set may not be published
        withheld = [AnnotatedImage(images[name], f"{where}, image {name}", None, ()) for name in names]
        return AnnotatedSplit(withheld, (), [], ())
    refuse_missing(where, f"annotation(s) of {ANNOTATIONS}/", lacking)
    read, difficult = list[AnnotatedImage](), list[str]()
    for name, annotation in annotations.items():
        root = _parsed(f"{place.root}/{annotation}", place.content(annotation))
        boxes, left_out = _boxes(f"{place.root}/{annotation}", root)
        read.append(AnnotatedImage(images[name], f"{place.root}/{annotation}", _size(root), boxes))
        difficult += [f"{annotation} {one}" for one in left_out]
    return AnnotatedSplit(read, (), list(annotations.values()), difficult)


def _parsed(where: str, content: bytes) -> Element:
    """Return the root of an XML file. One that declares a document type is refused: its entities may expand to any size
    or name files.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def refuse(*_: Any) -> NoReturn:
        raise UserError(f"{where}: declares a document type, which annotations have none of; take it away")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # the latter two of an unknown encoding
        raise UserError(f"{where}: is not XML, or was cut short ({error})") from error
    return builder.close()


def _size(root: Element) -> tuple[int, int] | None:
    """Return the (width, height) of an image; None where none, or 0, is written."""
    sides = [(root.findtext(f"size/{side}") or "").strip() for side in ("width", "height")]
    return (int(sides[0]), int(sides[1])) if all(map(PIXELS.fullmatch, sides)) else None


def _boxes(where: str, root: Element) -> tuple[list[DrawnBox], list[str]]:
    """Return the boxes of an image, and the names of those marked difficult.

    Raises:
        UserError: an object without a name or box.
    """
    boxes, difficult = list[DrawnBox](), list[str]()
    for number, found in enumerate(root.findall("object"), start=1):
        category = (found.findtext("name") or "").strip()
        name = f"object {number}" + (f" ({category})" if category else "")
        if not category:
            raise UserError(f"{where}, {name}: has no name; write its class")
        if (found.findtext("difficult") or "").strip() not in ("", "0"):
            difficult.append(name)
            continue
        written = [(found.findtext(f"bndbox/{side}") or "").strip() for side in SIDES]
        try:
            sides = [float(side) for side in written]
        except ValueError as error:
            shown = ", ".join(f"{key} {text!r}" for key, text in zip(SIDES, written, strict=True))
            raise UserError(f"{where}, {name}: has no box, {shown}; write four numbers, in pixels") from error
        boxes.append(DrawnBox(name, category, sides))
    return boxes, difficult
