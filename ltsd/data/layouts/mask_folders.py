"""Images and label maps in folders, matched by the stems of their files: `images/` beside `annotations/`, `masks/` or
`labels/`, with folders of splits inside or around them, and CamVid's `train/` beside `trainannot/`.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ltsd.config import DataConfig
from ltsd.data.decode import Encoded, Mask
from ltsd.data.filesystems import Place
from ltsd.data.layouts.cards import read_card
from ltsd.data.layouts.folders import readable_suffixes
from ltsd.data.layouts.label_maps import checked_names
from ltsd.data.layouts.layout import WHOLE, Layout, find_layout
from ltsd.data.layouts.reading import Opened
from ltsd.data.layouts.roles import Choices, by_role, choices_of, role_of
from ltsd.data.names import listed
from ltsd.errors import UserError

IMAGES, MASKS, SUFFIX = "images", ("annotations", "masks", "labels"), "annot"
CLASSES = "classes.txt"
ALONE = "masks of no image that is read"

Pairs = Sequence[tuple[str, str]]
"""Paths of an image and of its mask."""


@dataclass(frozen=True)
class _Masks:
    """Masks by the key of their image: its path without the ending, in which the folder of images is named IMAGES."""

    of_key: Mapping[str, str]

    def of(self, image: str) -> str | None:
        """Return the mask of an image; None if it has none."""
        return self.of_key.get(_key(image))

    def belong_to(self, images: Collection[str]) -> dict[str, str]:
        """Return the masks by key that lie in the folders of masks beside some images."""
        folders = {_key(image).rpartition("/")[0] for image in images}
        return {key: mask for key, mask in self.of_key.items() if key.rpartition("/")[0] in folders}


def open_mask_folder(place: Place, paths: Sequence[str], data: DataConfig) -> Opened | None:
    """Return the images and label maps of a local folder by split, not decoded yet; None if no folder of masks lies
    beside a folder of images.

    Class names are the lines of a `classes.txt` beside or above the images, else there are none yet. A held-out split
    without any mask has no labels.

    Args:
        place: the folder.
        paths: relative to the folder, none of them hidden.
        data: the data configuration.

    Raises:
        UserError: no training images; an image without a mask, or a mask without an image; two masks of one image; a
            `classes.txt` with a class twice or without a name, or too many.
    """
    choices = choices_of(data.split_map)
    named = {name for chosen in choices.values() for name in chosen}
    pictures = [path for path in paths if PurePosixPath(path).suffix.casefold() in readable_suffixes()]
    masks = _masks(place, pictures, named, data.config) if place.is_local else None
    if masks is None:
        return None
    are_masks = set(masks.of_key.values())
    images = [path for path in pictures if path not in are_masks]
    layout = find_layout(data.source, images, data.config, read_card(place, paths), named=named, by_file=False)
    roles = _roles(place, layout, choices)
    held_out = {split for role, splits in roles.items() for split in splits if role != "train"}
    unlabelled = {split for split in held_out if not any(map(masks.of, layout.splits[split]))}
    used = held_out.union(roles["train"]) - unlabelled
    pairs = {split: _paired(place, layout.splits[split], masks) for split in used}
    first = roles["train"][0]
    names, named_in = _class_names(place, paths, layout.splits[first])
    files = {split: [*found, *filter(None, map(masks.of, found))] for split, found in layout.splits.items()}
    files[first] += named_in
    alone = are_masks.difference(*files.values())
    return Opened(
        class_names=names,
        config=layout.config,
        rows={split: encoded_pairs(place, of_split) for split, of_split in pairs.items()},
        files=files,
        roles=roles,
        unlabelled=unlabelled,
        passed_over={**layout.passed_over, ALONE: sorted(alone)},
    )


def _roles(place: Place, layout: Layout, choices: Choices) -> dict[str, tuple[str, ...]]:
    """Return the names of the splits of each role.

    Raises:
        UserError: as `by_role`; none trains.
    """
    roles = by_role(place.source, layout.names, choices)
    if not layout.names:
        roles["train"] = (WHOLE,)
    if not roles["train"]:
        raise UserError(
            f"--data.source {place.source}: has the splits {listed(layout.names)} and none named train; "
            f"--data.split-map train=NAME names the folder of the training images"
        )
    return roles


def _masks(place: Place, pictures: Sequence[str], named: Collection[str], config: str | None) -> _Masks | None:
    """Return the masks of a source; None if there are none, or none beside a folder of images.

    Raises:
        UserError: an image has two masks.
    """
    above = os.path.commonpath([path.rpartition("/")[0] for path in pictures]) if pictures else ""
    homes = [f"{home}/" for home in ((config or "").strip("./"), above) if home]
    found = {path: key for path in pictures if (key := _key_of_mask(path, homes, named)) is not None}
    beside = {key.rpartition("/")[0] for key in found.values()}
    if not any(path not in found and _key(path).rpartition("/")[0] in beside for path in pictures if beside):
        return None
    of_key: dict[str, str] = {}
    for path, key in found.items():
        if key in of_key:
            raise UserError(f"{place.root}/{path}: is a second mask of one image, beside {of_key[key]}; keep one")
        of_key[key] = path
    return _Masks(of_key)


def _key(image: str) -> str:
    *folders, name = image.split("/")
    return "/".join([*map(_spelling, folders), PurePosixPath(name).stem])


def _spelling(folder: str) -> str:
    return IMAGES if folder.casefold() == IMAGES else folder


def _key_of_mask(path: str, homes: Sequence[str], named: Collection[str]) -> str | None:
    """Return the key of the image that a mask is of; None for what is no mask.

    Above a folder of masks there are only folders of splits, and the folder of the data set: elsewhere, as in a folder
    of each class, masks are images as any other.
    """
    *folders, name = path.split("/")
    for i, folder in enumerate(folders):
        of_split = folder[: -len(SUFFIX)] if folder.casefold().endswith(SUFFIX) else ""
        if folder.casefold() not in MASKS and not role_of(of_split) and of_split not in named:
            continue
        above = "".join(f"{one}/" for one in folders[:i])
        inside = next((above.removeprefix(home) for home in homes if above.startswith(home)), above)
        if all(role_of(one) or one in named for one in inside.split("/")[:-1]):
            return _key("/".join([*folders[:i], of_split or IMAGES, *folders[i + 1 :], name]))
    return None


def _paired(place: Place, images: Collection[str], masks: _Masks) -> Pairs:
    """Return the images of a split with their masks, sorted.

    Raises:
        UserError: one of either lacks the other.
    """
    found = {image: masks.of(image) for image in sorted(images)}
    for image, mask in found.items():
        if mask is None:
            raise UserError(
                f"{place.root}/{image}: an image without a mask; bring a mask with the stem "
                f"{PurePosixPath(image).stem!r}, or take the image away"
            )
    known = set(map(_key, images))
    for key, mask in masks.belong_to(images).items():
        if key not in known:
            raise UserError(
                f"{place.root}/{mask}: a mask without an image; bring an image with the stem "
                f"{PurePosixPath(mask).stem!r}, or take the mask away"
            )
    return [(image, mask) for image, mask in found.items() if mask is not None]


def _class_names(place: Place, paths: Collection[str], images: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the class names of the nearest `classes.txt` above the training images, and its path; empty if none."""
    above = [path for path in paths if path.rpartition("/")[2].casefold() == CLASSES]
    beside = [path for path in above if all(image.startswith(path[: -len(CLASSES)]) for image in images)]
    if not beside:
        return [], []
    path = max(beside, key=len)
    lines = place.content(path).decode(errors="replace").rstrip().splitlines()
    names = [line.strip() for line in lines]
    for number, name in enumerate(names, start=1):
        if not name or name in names[: number - 1]:
            raise UserError(
                f"{place.root}/{path} line {number}: {name!r} is not the name of one more class; write that of class 0 "
                f"into the first line, that of class 1 into the second, and so on"
            )
    return checked_names(place.source, names), [path]


def encoded_pairs(place: Place, pairs: Pairs, indices: bytes = b"") -> Encoded:
    """Yield images and masks as they lie on the disk; `indices` is as in `Mask`."""
    for image, mask in pairs:
        encoded = Mask(f"{place.root}/{mask}", place.content(mask), indices)
        yield f"{place.root}/{image}", place.content(image), encoded
