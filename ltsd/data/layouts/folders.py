"""Images in folders: one folder per class, as torchvision's `ImageFolder` reads them, and Tiny-ImageNet as it is."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath

from PIL import Image

from ltsd.config import DataConfig
from ltsd.data.clips import SUFFIXES
from ltsd.data.decode import Encoded
from ltsd.data.filesystems import Place
from ltsd.data.layouts.cards import read_card
from ltsd.data.layouts.layout import OUTSIDE, ROOT, WHOLE, Layout, find_layout
from ltsd.data.layouts.reading import Opened
from ltsd.data.layouts.roles import Choices, by_role, choices_of
from ltsd.data.names import listed
from ltsd.errors import UserError

WITHOUT_CLASS = "images outside the folders of classes"
WNIDS, ANNOTATIONS = "wnids.txt", "val_annotations.txt"
PICTURES_UNREAD = (".heic", ".heif", ".jxl", ".svg", ".dng", ".cr2", ".nef", ".arw", ".eps", ".psb")
NEED_MORE = ("EPS", "WMF", "MPEG", "HDF5", "GRIB", "BUFR")
"""Formats that Pillow knows and opens only with another program's help."""

Samples = list[tuple[str, int]]
Below = Mapping[str, str]


@dataclass(frozen=True)
class _ImageTree:
    """Image files by split, each with its path below the folder of the split, and the labels that a table gives."""

    place: Place
    layout: Layout
    annotations: Mapping[str, Mapping[str, str]]

    def class_of(self, split: str, path: str) -> str:
        """Return the class of an image: by its split's table, else its first folder below the split; "" for none."""
        if split in self.annotations:
            return self.annotations[split].get(path, "")
        first, slash, _ = self.layout.splits[split][path].partition("/")
        return first if slash else ""

    def classes(self, split: str) -> list[str]:
        """Return the classes of a split, sorted."""
        return sorted({self.class_of(split, path) for path in self.layout.splits[split]} - {""})

    def samples(self, split: str, label_of: Mapping[str, int]) -> Samples:
        """Return paths and labels, sorted by class and folder as torchvision sorts them.

        Raises:
            UserError: an image of a class that has no label.
        """
        found: list[tuple[int, str, str]] = []
        for path in self.annotations.get(split, self.layout.splits[split]):
            name = self.class_of(split, path)
            if name and name not in label_of:
                where = self._folder_of(split, path, name)
                raise UserError(
                    f"{where}: is not one of the {len(label_of):,} classes of the training images, "
                    f"{listed(list(label_of))}; take it away, or leave its split out with --data.split-map"
                )
            if name:
                folder, _, file = path.rpartition("/")
                found.append((label_of[name], folder, file))
        ordered = found if split in self.annotations else sorted(found)
        return [(f"{folder}/{file}" if folder else file, label) for label, folder, file in ordered]

    def _folder_of(self, split: str, path: str, name: str) -> str:
        above = path.removesuffix(self.layout.splits[split][path])
        return f"{self.place.root}/{above}{name}"


def open_folder(place: Place, paths: Sequence[str], data: DataConfig) -> Opened:
    """Return the images of a folder by split, not decoded yet; class names are those of the training folders, sorted.

    Images may lie in folders below their class's. Tiny-ImageNet is known by its `wnids.txt`: its labels are the
    places in the sorted WordNet ids, its validation images the test set.

    Args:
        paths: relative to the folder, none of them hidden.

    Raises:
        UserError: not local, not an image set, or a test image whose class has no training images.
    """
    if not place.is_local:
        raise UserError(
            f"--data.source {place.source}: holds no Parquet or Arrow file; folders of images are read from local disks"
        )
    choices = choices_of(data.split_map)
    tree = _tree(place, paths, data, choices)
    roles = by_role(data.source, tree.layout.names, choices)
    if not tree.layout.names:
        roles["train"] = (WHOLE,)
    classes = sorted({name for split in roles["train"] for name in tree.classes(split)})
    if WNIDS in paths:
        classes = sorted(place.read(WNIDS).decode().split())
    _check_classes(place, tree.layout, roles["train"], classes, paths)
    label_of = {name: label for label, name in enumerate(classes)}
    unlabelled = {split for splits in roles.values() for split in splits if not tree.classes(split)}
    if WNIDS in paths and "test" not in choices:  # its test images have no labels and lie in a folder that is no class
        roles["test"] = tuple(split for split in roles["test"] if set(tree.classes(split)) & set(classes))
    used = {split: tree.samples(split, label_of) for of in roles.values() for split in of if split not in unlabelled}
    stray = [path for split in used for path in tree.layout.splits[split] if not tree.class_of(split, path)]
    return Opened(
        class_names=classes,
        config=tree.layout.config,
        rows={split: _encoded(place, samples) for split, samples in used.items()},
        files={
            split: [path for path, _ in used[split]] if split in used else list(files)
            for split, files in tree.layout.splits.items()
        },
        roles=roles,
        unlabelled=unlabelled,
        passed_over={**tree.layout.passed_over, WITHOUT_CLASS: stray},
        kind="image" if _of_suffixes(paths, readable_suffixes()) else "clip",
    )


def _tree(place: Place, paths: Sequence[str], data: DataConfig, choices: Choices) -> _ImageTree:
    images = _of_suffixes(paths, readable_suffixes()) or _of_suffixes(paths, SUFFIXES)
    if not images:
        raise UserError(
            f"--data.source {place.source}: not an image set; it needs Parquet or Arrow files, or one folder of images "
            f"per class"
        )
    named = {name for chosen in choices.values() for name in chosen}
    layout = find_layout(data.source, images, data.config, read_card(place, paths), named=named, by_file=False)
    if WHOLE in layout.splits:
        layout = replace(layout, splits={WHOLE: _without_wrapper(layout.splits[WHOLE])})
    for files in layout.splits.values() if data.config is None else ():
        _refuse_two_levels(place, list(files.values()))
    tree = _ImageTree(place, layout, dict(_annotations(place, layout, paths)))
    if WHOLE in layout.splits or any(tree.classes(split) for split in layout.splits):
        return tree
    if OUTSIDE not in layout.passed_over:
        raise UserError(
            f"--data.source {place.source}: its only folders of images, {listed(list(layout.splits))}, are named as "
            f"splits are and have no folder for each class; put the images of each split into one folder per class"
        )
    # A class may be called train, or test tube: where no folder of that kind has classes, they are all classes.
    whole = {WHOLE: {path: path for path in images}}
    rest = {reason: found for reason, found in layout.passed_over.items() if reason != OUTSIDE}
    return replace(tree, layout=replace(layout, splits=whole, passed_over=rest))


def _of_suffixes(paths: Sequence[str], suffixes: Collection[str]) -> list[str]:
    return [path for path in paths if PurePosixPath(path).suffix.casefold() in suffixes]


def _without_wrapper(below: Below) -> Below:
    """Return the images of a tree without the folders that hold all its classes, if there are any."""
    folders = [one.rpartition("/")[0] for one in below.values()]
    wrapper = os.path.commonpath(folders)
    if not wrapper or wrapper in folders:  # of one class alone there may be folders below it
        return below
    return {path: one.removeprefix(f"{wrapper}/") for path, one in below.items()}


def _refuse_two_levels(place: Place, below: Sequence[str]) -> None:
    """Refuse a tree in which either of two levels could be the classes: `one/cat`, `one/dog`, `two/cat` ….

    Raises:
        UserError: folders of one name lie below several others, beside some of another name.
    """
    tops: dict[str, set[str]] = {}
    for path in below:
        if len(parts := path.split("/")) > 2:
            tops.setdefault(parts[1], set()).add(parts[0])
    shared = sorted(name for name, above in tops.items() if len(above) > 1)
    if shared and len(tops) > 1:
        above = sorted(tops[shared[0]])
        raise UserError(
            f"--data.source {place.source}: the folders {listed(above, 3)} hold folders of the same names, "
            f"{listed(shared, 3)}: several data sets, or classes with folders in them; choose one with --data.config "
            f"{above[0]}, or say --data.config {ROOT} where {listed(above, 3)} are the classes"
        )


def _annotations(place: Place, layout: Layout, paths: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the classes of Tiny-ImageNet's validation images by path, from its table of names, classes and boxes."""
    for split in layout.splits:
        table = f"{split}/{ANNOTATIONS}"
        if table in paths and WNIDS in paths:
            names = set(place.read(WNIDS).decode().split())
            classes: dict[str, str] = {}
            for number, line in enumerate(place.read(table).decode().splitlines(), start=1):
                file, name = [*line.split("\t"), ""][:2]
                if name not in names:
                    raise UserError(
                        f"{place.root}/{table} line {number}: {name!r} is not one of the classes of {WNIDS}"
                    )
                if f"{split}/images/{file}" not in layout.splits[split]:
                    raise UserError(f"{place.root}/{split}/images/{file}: cannot be read (No such file or directory)")
                classes[f"{split}/images/{file}"] = name
            yield split, classes


def _check_classes(
    place: Place, layout: Layout, train: Sequence[str], classes: Sequence[str], paths: Sequence[str]
) -> None:
    """Check that there are training images in class folders, and that no such folder is unreadable as a whole."""
    if not train:
        raise UserError(
            f"--data.source {place.source}: has a folder {listed(layout.names)} and none "
            f"named train; --data.split-map train=NAME names the folder of the training images"
        )
    if not classes:
        raise UserError(
            f"--data.source {place.source}: not an image set; it needs Parquet or Arrow files, or one folder of images "
            f"per class"
        )
    roots = {path.removesuffix(below) for split in train for path, below in layout.splits[split].items()}
    for path in paths:
        root = next((root for root in roots if path.startswith(root) and "/" in path.removeprefix(root)), None)
        name = path.removeprefix(root or "").split("/")[0]
        if root is not None and name not in classes and PurePosixPath(path).suffix.casefold() in PICTURES_UNREAD:
            raise UserError(
                f"{place.root}/{root}{name}: none of its files is an image that can be read "
                f"({PurePosixPath(path).name}); convert them to PNG or JPEG, or take the folder away"
            )


@cache
def readable_suffixes() -> frozenset[str]:
    """Return the file suffixes of the formats that Pillow reads by itself."""
    Image.init()
    return frozenset(
        suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN and kind not in NEED_MORE
    )


def _encoded(place: Place, samples: Samples) -> Encoded:
    for relative, label in samples:
        path = Path(place.root) / relative
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        yield str(path), content, label
