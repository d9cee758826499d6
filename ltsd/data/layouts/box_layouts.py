"""Images in folders whose boxes are in files beside them: COCO's JSON, and PASCAL VOC's XML."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath

from ltsd.config import DataConfig
from ltsd.data.decode import Encoded
from ltsd.data.filesystems import Place
from ltsd.data.layouts import coco, voc
from ltsd.data.layouts.annotated import AnnotatedSet, AnnotatedSplit
from ltsd.data.layouts.folders import readable_suffixes
from ltsd.data.layouts.layout import OUTSIDE, WHOLE, only_home
from ltsd.data.layouts.reading import Opened
from ltsd.data.layouts.roles import by_role, choices_of
from ltsd.data.names import listed
from ltsd.errors import UserError

JOINED = "trainval"
WITHHELD = "files of held-out splits without any box"
UNUSED_CATEGORIES = "categories without any box"


def open_box_layout(place: Place, paths: Sequence[str], data: DataConfig) -> Opened | None:
    """Return the images and boxes of a local folder or of one JSON file by split, not decoded yet; None if there are no
    annotations of COCO or PASCAL VOC.

    Classes have the order of the ids of COCO's categories, or that of their names; those without any box are left out,
    as are held-out splits without any.

    Args:
        place: the folder, or what `coco.with_images` returned.
        paths: relative to it, none of them hidden.
        data: the data configuration.

    Raises:
        UserError: several sets, and `data.config` names none of them; no training images; an annotation that cannot be
            read, or names what is not there; as `by_role`.
    """
    known = frozenset(paths)
    ways = (coco.find, partial(voc.find, asked=data.labels == "boxes"))
    found = {one.home: one for find in ways for one in find(place, known)} if place.is_local else {}
    home = only_home(place.source, list(found), data.config)
    if home is None:
        return None
    roles = _roles(data, found[home])
    read = {split: found[home].read(found[home].splits[split]) for of_role in roles.values() for split in of_role}
    return _opened(place, paths, data, found[home], roles, read)


def _opened(
    place: Place,
    paths: Sequence[str],
    data: DataConfig,
    found: AnnotatedSet,
    roles: Mapping[str, Sequence[str]],
    read: Mapping[str, AnnotatedSplit],
) -> Opened:
    names, unused = _class_names([read[split] for split in roles["train"]], list(read.values()))
    unlabelled = {
        split for split, one in read.items() if split not in roles["train"] and not any(i.boxes for i in one.images)
    }
    files = {split: [of_split] if of_split else [] for split, of_split in found.splits.items()}
    files |= {split: [*one.files, *(image.path for image in one.images)] for split, one in read.items()}
    withheld = [path for split in unlabelled for path in files.pop(split)]
    used = {path for of_split in files.values() for path in of_split}.union(withheld)
    pictures = [path for path in paths if PurePosixPath(path).suffix.casefold() in readable_suffixes()]
    choices = choices_of(data.split_map)
    return Opened(
        class_names=names,
        config=data.config or "",
        rows={split: _rows(place, found, one, names) for split, one in read.items()},
        files=files,
        roles={
            role: of_role if role in choices else [split for split in of_role if split not in unlabelled]
            for role, of_role in roles.items()
        },
        unlabelled=unlabelled,
        passed_over={
            found.leaves_out: [name for one in read.values() for name in one.left_out],
            UNUSED_CATEGORIES: unused,
            WITHHELD: withheld,
            OUTSIDE: [path for path in pictures if path not in used],
        },
    )


def _roles(data: DataConfig, found: AnnotatedSet) -> dict[str, tuple[str, ...]]:
    """Return the names of the splits of each role. Where none is named train, `trainval` trains, or the only one.

    Raises:
        UserError: none trains; as `by_role`.
    """
    splits = list(found.splits)
    roles = by_role(data.source, [split for split in splits if split != WHOLE], choices_of(data.split_map))
    if not roles["train"] and JOINED in splits:
        roles["train"] = (JOINED,)
    if splits == [WHOLE] or (len(splits) == 1 and not any(roles.values())):
        roles["train"] = tuple(splits)
    if not roles["train"]:
        raise UserError(
            f"--data.source {data.source}: has boxes of the splits {listed(splits)} and of none named train; "
            f"--data.split-map train=NAME names the split to train on"
        )
    return roles


def _class_names(train: Sequence[AnnotatedSplit], used: Sequence[AnnotatedSplit]) -> tuple[list[str], list[str]]:
    """Return the classes of the training images, and the categories that no box of any image has."""
    in_use = {box.category for split in used for image in split.images for box in image.boxes}
    declared = list(dict.fromkeys(name for split in train for name in split.categories))
    if not declared:
        return sorted({box.category for split in train for image in split.images for box in image.boxes}), []
    return [name for name in declared if name in in_use], [name for name in declared if name not in in_use]


def _rows(place: Place, found: AnnotatedSet, split: AnnotatedSplit, names: Sequence[str]) -> Encoded:
    class_of = {name: number for number, name in enumerate(names)}
    for image in split.images:
        classes = [_class(f"{image.place}, {box.name}", box.category, class_of) for box in image.boxes]
        sides = [box.sides for box in image.boxes]
        boxes = found.boxes(image.place, [box.name for box in image.boxes], classes, sides, image.size)
        yield f"{place.root}/{image.path}", place.content(image.path), boxes


def _class(place: str, name: str, class_of: Mapping[str, int]) -> int:
    if name not in class_of:
        raise UserError(
            f"{place}: {name!r} is not one of the {len(class_of)} classes of the training images, "
            f"{listed(list(class_of))}; mend it, or leave its split out with --data.split-map"
        )
    return class_of[name]
